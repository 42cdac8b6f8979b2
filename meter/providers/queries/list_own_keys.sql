-- The keys that an account has stored, without their secrets.
SELECT provider, owner, key_version, hint, updated_at, refused_at, refused_status, refused_reason
FROM provider_keys WHERE owner = $1 AND owner <> 'system' ORDER BY provider
