-- Stores new terms of an issuer; keys that were fetched under other terms are fetched again.
UPDATE issuers SET terms = $2::jsonb, is_enabled = $3, updated_at = clock_timestamp() WHERE id = $1
