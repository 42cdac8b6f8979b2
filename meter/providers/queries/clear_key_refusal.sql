-- Forgets a refusal of this version of a key that is older than so many seconds.
UPDATE provider_keys SET refused_at = NULL, refused_status = NULL, refused_reason = NULL
WHERE provider = $1 AND owner = $2 AND key_version = $3
  AND refused_at < clock_timestamp() - make_interval(secs => $4)
RETURNING true
