-- Tells whether the plan of an account is among these.
SELECT EXISTS (SELECT FROM accounts WHERE id = $1 AND plan_id = ANY ($2::text[]))
