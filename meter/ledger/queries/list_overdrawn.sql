-- Accounts further below zero than they may stay, once no hold of theirs is open. What reversed
-- payments caused stays owed.
SELECT id FROM accounts
WHERE overdrawn_picos > 0 AND held_picos = 0
  AND balance_picos < -max_debt_picos - reversed_debt_picos
ORDER BY id LIMIT $1
