-- One account with its funds.
SELECT id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos, created_at
FROM accounts WHERE id = $1
