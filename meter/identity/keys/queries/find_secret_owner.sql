-- Whose key has this secret, as long as the secret lives.
SELECT c.id, c.account_id FROM credential_secrets s
JOIN credentials c ON c.id = s.credential_id
WHERE s.digest = $1 AND (s.ends_at IS NULL OR s.ends_at > clock_timestamp())
