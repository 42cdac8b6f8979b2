-- An account's funds, locked against every other change of them until the commit.
SELECT balance_picos, held_picos FROM accounts WHERE id = $1 FOR NO KEY UPDATE
