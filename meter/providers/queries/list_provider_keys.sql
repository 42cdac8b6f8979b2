-- The keys of the house, without their secrets.
SELECT provider, owner, key_version, hint, updated_at, refused_at, refused_status, refused_reason
FROM provider_keys WHERE owner = 'system' ORDER BY provider
