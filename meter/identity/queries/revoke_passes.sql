-- Revokes all live passes of an account, or of one credential.
UPDATE passes SET revoked_at = clock_timestamp()
WHERE account_id = $1 AND ($2::text IS NULL OR credential_id = $2)
  AND revoked_at IS NULL AND expires_at > clock_timestamp()
RETURNING id
