-- Deletes a key that an account has stored.
DELETE FROM provider_keys WHERE provider = $1 AND owner = $2 AND owner <> 'system'
RETURNING true
