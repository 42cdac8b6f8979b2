-- Suspends or resumes an account; saying it twice changes nothing.
UPDATE accounts SET is_suspended = $2
WHERE id = $1
RETURNING id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos, created_at
