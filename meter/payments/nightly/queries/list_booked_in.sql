-- The rows that were written into our books in a period.
SELECT p.id AS cause, 'charge' AS kind, p.id AS payment_id, p.account_id, p.paid_cents AS cents
FROM payments p WHERE p.is_live = $1 AND p.recorded_at >= $2 AND p.recorded_at < $3
UNION ALL
SELECT r.cause, r.kind, r.payment_id, r.account_id, r.cents
FROM payment_reversals r JOIN payments p ON p.id = r.payment_id
WHERE p.is_live = $1 AND r.recorded_at >= $2 AND r.recorded_at < $3
ORDER BY cause LIMIT $4
