-- The signing keys that are published now, newest first.
SELECT id, algorithm, public_jwk, sealed, created_at, signs_from, published_until
FROM signing_keys WHERE published_until IS NULL OR published_until > $1
ORDER BY signs_from DESC, id
