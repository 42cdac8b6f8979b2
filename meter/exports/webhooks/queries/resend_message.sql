-- Has a message of an account's webhook sent again, at once.
WITH due AS (
    UPDATE webhooks SET is_due = true, next_attempt_at = clock_timestamp()
    WHERE account_id = $1 AND id = $2 RETURNING id
)
UPDATE webhook_messages m SET state = 'waiting', attempts = 0
FROM due WHERE m.webhook_id = due.id AND m.id = $3
RETURNING m.id, m.seq, m.type, m.body, m.state, m.attempts, m.error, m.created_at, m.attempted_at
