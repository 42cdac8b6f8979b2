-- The sealed key of a provider, locked until a new one is stored.
SELECT provider, owner, key_version, sealed FROM provider_keys
WHERE provider = $1 AND owner = $2 FOR UPDATE
