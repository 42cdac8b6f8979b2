-- Moves an account to a plan that exists; returns the plan before.
UPDATE accounts a SET plan_id = p.id, plan_version = NULL
FROM plans p, accounts before
WHERE a.id = $1 AND before.id = a.id AND p.id = $2 AND a.plan_id <> p.id
RETURNING before.plan_id
