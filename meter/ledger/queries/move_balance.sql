-- Adds a posting to a balance; an amount that no longer exceeds the holds is no longer overdrawn. $3:
-- the posting reverses a payment, which alone may overdraw here; its part of the overdraft is noted.
UPDATE accounts SET
    balance_picos = balance_picos + $2,
    overdrawn_picos = CASE
        WHEN $3 THEN greatest(0, held_picos - (balance_picos + $2))
        ELSE least(overdrawn_picos, greatest(0, held_picos - (balance_picos + $2))) END,
    reversed_debt_picos = least(
        greatest(0, held_picos - (balance_picos + $2)),
        reversed_debt_picos + CASE WHEN $3 THEN greatest(0, -$2) ELSE 0 END)
WHERE id = $1
RETURNING balance_picos, next_expiry
