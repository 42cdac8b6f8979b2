-- The sealed key of a provider.
SELECT provider, owner, key_version, sealed, hint, updated_at
FROM provider_keys WHERE provider = $1 AND owner = $2
