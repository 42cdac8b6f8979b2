-- Every issuer with the last key set fetched from it.
SELECT id, url, terms, is_enabled, keys, keys_fetched_at, created_at, updated_at
FROM issuers ORDER BY id
