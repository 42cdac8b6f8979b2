-- Coupons, newest first, older than the one at ($1, $2).
SELECT * FROM coupons
WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2::text)
ORDER BY created_at DESC, id DESC LIMIT $3
