-- Gives new periods a version of a plan, and running ones too where $3 says so.
UPDATE plans SET current_version = $2, retired_at = NULL,
    least_version = CASE WHEN $3::boolean THEN $2 ELSE least_version END
WHERE id = $1
