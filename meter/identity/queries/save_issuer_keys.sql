-- Stores a key set, unless a newer one is stored or the issuer was removed.
UPDATE issuers SET keys = $2::jsonb, keys_fetched_at = $3
WHERE id = $1 AND (keys_fetched_at IS NULL OR keys_fetched_at < $3)
