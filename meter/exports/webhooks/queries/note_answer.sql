-- Notes that a message was taken, or is parked ($4, $5); no row where the webhook is another
-- worker's by now. Worker $2 keeps it for $6 seconds more.
WITH kept AS (
    UPDATE webhooks SET failures = 0, error = $5,
        taken_until = clock_timestamp() + make_interval(secs => $6)
    WHERE id = $1 AND taken_by = $2 RETURNING id
)
UPDATE webhook_messages m SET state = $4, attempts = m.attempts + 1, error = $5,
    attempted_at = clock_timestamp()
FROM kept WHERE m.webhook_id = kept.id AND m.id = $3
RETURNING m.id
