-- Locks an account until the commit.
SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE
