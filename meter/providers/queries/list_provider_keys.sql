-- The provider keys that are set, without their secrets.
SELECT provider, owner, key_version, hint, updated_at FROM provider_keys ORDER BY provider, owner
