-- Sets how far an account may stay below zero; returns the limit before.
UPDATE accounts a SET max_debt_picos = $2
FROM (SELECT id, max_debt_picos FROM accounts WHERE id = $1 FOR NO KEY UPDATE) before
WHERE a.id = before.id RETURNING before.max_debt_picos
