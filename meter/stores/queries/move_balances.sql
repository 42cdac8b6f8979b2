-- Applies charges and frees what was held; an account goes below zero only by measured excess.
UPDATE accounts a SET
    balance_picos = a.balance_picos - m.charge,
    held_picos = a.held_picos - m.freed,
    overdrawn_picos = least(
        a.overdrawn_picos + m.excess,
        greatest(0, (a.held_picos - m.freed) - (a.balance_picos - m.charge)))
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
    AS m (account_id, charge, freed, excess)
WHERE a.id = m.account_id
