-- The webhooks of an account, oldest first, or the one with the id $2.
SELECT w.id, w.account_id, w.url, w.events, w.low_balance_picos, w.budget_percent, w.failures,
       w.error, w.next_attempt_at, w.created_at,
       (SELECT count(*) FROM webhook_messages m
        WHERE m.webhook_id = w.id AND m.state = 'waiting') AS waiting
FROM webhooks w WHERE w.account_id = $1 AND ($2::text IS NULL OR w.id = $2)
ORDER BY w.created_at, w.id
