-- Suspends or resumes a key. The caller holds the lock of the account.
UPDATE credentials SET suspended_at = CASE WHEN $2 THEN clock_timestamp() END WHERE id = $1
