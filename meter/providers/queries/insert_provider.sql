-- Adds a provider; returns nothing where there is one with this id.
INSERT INTO providers (id, dialect, base_url, model_prefix, is_free) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO NOTHING RETURNING id
