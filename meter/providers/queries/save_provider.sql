-- Changes the terms and the state of a provider.
UPDATE providers
SET base_url = $2, model_prefix = $3, is_free = $4, state = $5, updated_at = clock_timestamp()
WHERE id = $1
