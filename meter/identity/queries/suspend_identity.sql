-- Suspends or resumes an identity or certificate; a revoked one stays revoked.
UPDATE credentials
SET suspended_at = CASE WHEN $3 THEN coalesce(suspended_at, clock_timestamp()) END
WHERE id = $2 AND account_id = $1 AND kind <> 'key' AND revoked_at IS NULL
RETURNING id
