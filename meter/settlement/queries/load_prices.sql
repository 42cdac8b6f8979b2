-- The prices with these ids.
SELECT * FROM prices WHERE id = ANY ($1::bigint[])
