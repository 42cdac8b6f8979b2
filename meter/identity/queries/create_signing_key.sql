-- Publishes a new signing key.
INSERT INTO signing_keys (id, algorithm, public_jwk, sealed, created_at, signs_from)
VALUES ($1, $2, $3::jsonb, $4, $5, $6)
RETURNING id, algorithm, public_jwk, sealed, created_at, signs_from, published_until
