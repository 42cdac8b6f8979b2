-- Locks such an account, and returns what it owes beyond its limit. No row where another
-- transaction holds the lock, or where the account owes no more.
SELECT -balance_picos - max_debt_picos - reversed_debt_picos AS beyond_picos FROM accounts
WHERE id = $1 AND overdrawn_picos > 0 AND held_picos = 0
  AND balance_picos < -max_debt_picos - reversed_debt_picos
FOR NO KEY UPDATE SKIP LOCKED
