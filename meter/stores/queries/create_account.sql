-- Opens an account.
INSERT INTO accounts (id, email, name, plan_id, markup_bps)
VALUES ($1, $2, $3, $4, $5)
RETURNING id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos, created_at
