-- The keys of a provider that accounts have stored.
SELECT count(*) FROM provider_keys WHERE provider = $1 AND owner <> 'system'
