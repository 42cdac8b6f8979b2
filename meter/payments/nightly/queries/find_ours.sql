-- The accounts of those of these payments and purchases that are ours.
SELECT p.id AS id, p.account_id FROM payments p WHERE p.is_live = $1 AND p.id = ANY($2::text[])
UNION ALL
SELECT p.id::text AS id, p.account_id FROM purchases p
WHERE p.is_live = $1 AND p.id = ANY($3::uuid[])
