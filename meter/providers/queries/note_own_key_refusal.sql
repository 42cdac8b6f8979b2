-- Stores that a provider refused requests that began at $3 with an account's own key. A key that was
-- set so shortly before ($6) may not be the one that was refused.
UPDATE provider_keys
SET refused_at = clock_timestamp(), refused_status = $4, refused_reason = $5
WHERE provider = $1 AND owner = $2 AND owner <> 'system' AND updated_at + $6::interval < $3
