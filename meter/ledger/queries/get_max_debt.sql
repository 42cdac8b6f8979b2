-- Returns the limit of an account's debt.
SELECT max_debt_picos FROM accounts WHERE id = $1
