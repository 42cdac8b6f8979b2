-- Changes those terms of an account whose flag is set.
UPDATE accounts SET
    name = CASE WHEN $2 THEN $3 ELSE name END,
    plan_id = coalesce($4, plan_id),
    markup_bps = CASE WHEN $5 THEN $6 ELSE markup_bps END
WHERE id = $1
RETURNING id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos, created_at
