-- Adds a trusted issuer.
INSERT INTO issuers (id, url, terms, is_enabled) VALUES ($1, $2, $3::jsonb, $4)
