-- Adds a test message to an account's webhook, one in a minute; it is sent at once.
WITH due AS (
    UPDATE webhooks SET is_due = true, next_attempt_at = clock_timestamp()
    WHERE account_id = $1 AND id = $2 RETURNING id
)
INSERT INTO webhook_messages AS m (webhook_id, type, cause, body)
SELECT id, 'webhook.test', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
       webhook_body('webhook.test', json_build_object('webhook_id', id))
FROM due
ON CONFLICT (webhook_id, type, cause) DO UPDATE SET cause = m.cause
RETURNING m.id, m.seq, m.type, m.body, m.state, m.attempts, m.error, m.created_at, m.attempted_at
