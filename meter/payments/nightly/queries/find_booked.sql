-- The rows of our books with these causes. A payment's cause is its id.
SELECT p.id AS cause, 'charge' AS kind, p.id AS payment_id, p.account_id, p.paid_cents AS cents
FROM payments p WHERE p.is_live = $1 AND p.id = ANY($2::text[])
UNION ALL
SELECT r.cause, r.kind, r.payment_id, r.account_id, r.cents
FROM payment_reversals r JOIN payments p ON p.id = r.payment_id
WHERE p.is_live = $1 AND r.cause = ANY($2::text[])
