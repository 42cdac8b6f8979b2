-- Locks an account against every other change of it until the commit.
SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE
