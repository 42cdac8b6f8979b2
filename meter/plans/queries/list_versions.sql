-- The history of a plan, newest first.
SELECT v.*, p.current_version, p.least_version, p.retired_at
FROM plans p JOIN plan_versions v ON v.plan_id = p.id
WHERE p.id = $1
ORDER BY v.version DESC
