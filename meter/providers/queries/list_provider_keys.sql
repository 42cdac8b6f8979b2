-- Which provider keys are set; nothing secret.
SELECT provider, owner, key_version, hint, updated_at FROM provider_keys ORDER BY provider, owner
