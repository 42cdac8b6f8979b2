-- The subscription of an account that has not ended, the newest of several.
SELECT * FROM subscriptions WHERE account_id = $1 AND is_live = $2 AND ended_at IS NULL
ORDER BY created_at DESC LIMIT 1
