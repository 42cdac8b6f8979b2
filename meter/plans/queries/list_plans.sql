-- The newest version of every plan, in the order in which they are shown.
SELECT v.*, p.current_version, p.least_version, p.retired_at
FROM plans p JOIN plan_versions v ON v.plan_id = p.id AND v.version = p.current_version
ORDER BY v.position, p.id
