-- Locks an account, as every posting does first.
SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE
