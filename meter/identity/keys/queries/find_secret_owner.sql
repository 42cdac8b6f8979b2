-- The key that a live secret belongs to.
SELECT c.id, c.account_id FROM credential_secrets s
JOIN credentials c ON c.id = s.credential_id
WHERE s.digest = $1 AND (s.ends_at IS NULL OR s.ends_at > clock_timestamp())
