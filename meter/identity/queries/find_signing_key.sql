-- The key that signs at this instant: the youngest whose time has come.
SELECT id, algorithm, public_jwk, sealed, created_at, signs_from, published_until
FROM signing_keys WHERE signs_from <= $1 ORDER BY signs_from DESC, id LIMIT 1
