-- The messages that wait at a webhook, in order.
SELECT id, body, attempts FROM webhook_messages
WHERE webhook_id = $1 AND state = 'waiting' ORDER BY seq LIMIT $2
