-- How many passes of a credential may still act.
SELECT count(*) FROM passes
WHERE credential_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
