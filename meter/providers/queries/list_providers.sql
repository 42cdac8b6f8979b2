-- The providers.
SELECT id, dialect, base_url, state, model_prefix, is_free, created_at, updated_at
FROM providers ORDER BY id <> 'openrouter', id
