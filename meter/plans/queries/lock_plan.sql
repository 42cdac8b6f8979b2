-- The newest version of a plan, which is locked until the commit.
SELECT v.*, p.current_version, p.least_version, p.retired_at
FROM plans p JOIN plan_versions v ON v.plan_id = p.id AND v.version = p.current_version
WHERE p.id = $1 FOR NO KEY UPDATE OF p
