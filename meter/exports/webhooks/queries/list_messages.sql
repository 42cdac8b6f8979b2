-- The messages of an account's webhook, newest first, older than $3.
SELECT m.id, m.seq, m.type, m.body, m.state, m.attempts, m.error, m.created_at, m.attempted_at
FROM webhook_messages m JOIN webhooks w ON w.id = m.webhook_id
WHERE w.account_id = $1 AND m.webhook_id = $2 AND ($3::bigint IS NULL OR m.seq < $3)
ORDER BY m.seq DESC LIMIT $4
