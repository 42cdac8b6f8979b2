-- Suspends or resumes a key whose account the caller has locked.
UPDATE credentials SET suspended_at = CASE WHEN $2 THEN clock_timestamp() END WHERE id = $1
