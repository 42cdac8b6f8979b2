-- The ids of accounts after $1, in order.
SELECT id FROM accounts WHERE id > $1 ORDER BY id LIMIT $2
