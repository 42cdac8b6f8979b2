-- The sealed key of a provider.
SELECT provider, owner, key_version, sealed, updated_at, refused_at, refused_status, refused_reason
FROM provider_keys WHERE provider = $1 AND owner = $2
