-- Who presents this digest, as long as the credential is neither revoked nor expired.
SELECT id, account_id FROM credentials
WHERE digest = $1 AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
