-- The accounts of those of these payments, purchases and customers that are ours.
SELECT p.id AS id, p.account_id FROM payments p WHERE p.is_live = $1 AND p.id = ANY($2::text[])
UNION ALL
SELECT p.id::text AS id, p.account_id FROM purchases p
WHERE p.is_live = $1 AND p.id = ANY($3::uuid[])
UNION ALL
SELECT c.customer_id AS id, c.account_id FROM stripe_customers c
WHERE c.is_live = $1 AND c.customer_id = ANY($4::text[])
