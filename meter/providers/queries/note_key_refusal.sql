-- Stores that the provider refused this version of a key.
UPDATE provider_keys
SET refused_at = clock_timestamp(), refused_status = $4, refused_reason = $5
WHERE provider = $1 AND owner = $2 AND key_version = $3
