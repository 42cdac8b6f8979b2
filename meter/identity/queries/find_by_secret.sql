-- The principal of a live secret; no row for unknown, revoked, suspended and expired secrets alike.
SELECT p.*, least(p.expires_at, s.ends_at) AS ends_at
FROM credential_secrets s
JOIN live_principals p ON p.credential_id = s.credential_id
WHERE s.digest = $1 AND (s.ends_at IS NULL OR s.ends_at > clock_timestamp())
