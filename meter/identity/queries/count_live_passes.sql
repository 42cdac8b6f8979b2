-- The number of live passes of a credential.
SELECT count(*) FROM passes
WHERE credential_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
