-- Locks a webhook that worker $2 sends to. It waits for transactions that add messages: these have
-- the row locked, or refer to it.
SELECT id FROM webhooks WHERE id = $1 AND taken_by = $2 FOR UPDATE
