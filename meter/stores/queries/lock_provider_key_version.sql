-- The version of a provider key, locked until the new one is stored.
SELECT key_version FROM provider_keys WHERE provider = $1 AND owner = $2 FOR UPDATE
