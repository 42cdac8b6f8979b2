-- An account's purchases, newest first, older than the one at ($2, $3).
SELECT * FROM purchases
WHERE ($1::text IS NULL OR account_id = $1)
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
ORDER BY created_at DESC, id DESC LIMIT $4
