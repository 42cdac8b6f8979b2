-- A provider, which nobody changes until the end of the transaction.
SELECT id, dialect, base_url, state, model_prefix, is_free, created_at, updated_at
FROM providers WHERE id = $1 FOR SHARE
