-- The funds of an account, locked until the commit.
SELECT balance_picos, held_picos FROM accounts WHERE id = $1 FOR NO KEY UPDATE
