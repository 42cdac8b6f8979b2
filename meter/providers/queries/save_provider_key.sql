-- Stores a sealed provider key, and replaces the one before with what is known of it.
INSERT INTO provider_keys (provider, owner, key_version, sealed, hint)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (provider, owner) DO UPDATE SET
    key_version = excluded.key_version, sealed = excluded.sealed, hint = excluded.hint,
    updated_at = clock_timestamp(),
    refused_at = NULL, refused_status = NULL, refused_reason = NULL
WHERE provider_keys.key_version < excluded.key_version
