-- The key that signs now: the newest key whose start has passed.
SELECT id, algorithm, public_jwk, sealed, created_at, signs_from, published_until
FROM signing_keys WHERE signs_from <= $1 ORDER BY signs_from DESC, id LIMIT 1
