-- The newest signing key, which may not sign yet.
SELECT id, algorithm, public_jwk, sealed, created_at, signs_from, published_until
FROM signing_keys ORDER BY signs_from DESC, id LIMIT 1
