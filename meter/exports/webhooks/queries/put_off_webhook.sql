-- Notes why a message was not taken. The webhook is tried again $5 s later, then after twice as
-- long, up to $6 s.
WITH late AS (
    UPDATE webhooks SET taken_by = NULL, taken_until = NULL, failures = failures + 1, error = $4,
        next_attempt_at = clock_timestamp()
            + make_interval(secs => least($5 * power(2, least(failures, 20)), $6::float8))
    WHERE id = $1 AND taken_by = $2 RETURNING id
)
UPDATE webhook_messages m SET attempts = m.attempts + 1, error = $4,
    attempted_at = clock_timestamp()
FROM late WHERE m.webhook_id = late.id AND m.id = $3
