-- Adds a secret of a key, by its digest.
INSERT INTO credential_secrets (digest, credential_id) VALUES ($1, $2)
