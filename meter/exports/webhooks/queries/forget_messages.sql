-- Deletes messages that are older than $1, $2 at most. Those of budgets without an end stay: they say
-- that the webhook was told.
WITH gone AS (
    DELETE FROM webhook_messages WHERE id IN (
        SELECT m.id FROM webhook_messages m
        WHERE m.created_at < clock_timestamp() - $1::interval
          AND NOT (m.type = 'budget.reached' AND m.cause LIKE '%:total:%')
        ORDER BY m.created_at LIMIT $2)
    RETURNING 1
)
SELECT count(*) FROM gone
