-- Lets an account owe what is taken back from it, within the limit of its debt; `move_balance`
-- lowers this to what it owes.
UPDATE accounts SET overdrawn_picos = overdrawn_picos + $2 WHERE id = $1
