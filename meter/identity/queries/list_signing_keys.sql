-- Every signing key that is published at this instant, youngest first.
SELECT id, algorithm, public_jwk, sealed, created_at, signs_from, published_until
FROM signing_keys WHERE published_until IS NULL OR published_until > $1
ORDER BY signs_from DESC, id
