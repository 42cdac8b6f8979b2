-- The provider keys that are set, without their secrets.
SELECT provider, owner, key_version, hint, updated_at, refused_at, refused_status, refused_reason
FROM provider_keys ORDER BY provider, owner
