-- Creates or changes a name of a model.
INSERT INTO model_aliases (name, model_id, is_redirect) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET
    model_id = excluded.model_id, is_redirect = excluded.is_redirect,
    updated_at = clock_timestamp()
