-- Adds a posting to a balance; an amount that no longer exceeds the holds is no longer overdrawn.
UPDATE accounts SET
    balance_picos = balance_picos + $2,
    overdrawn_picos = least(overdrawn_picos, greatest(0, held_picos - (balance_picos + $2)))
WHERE id = $1
RETURNING balance_picos
