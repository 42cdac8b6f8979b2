-- Subscriptions, newest first, older than the one at ($2, $3); of one account where $1 names one.
SELECT * FROM subscriptions
WHERE ($1::text IS NULL OR account_id = $1)
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
ORDER BY created_at DESC, id DESC LIMIT $4
