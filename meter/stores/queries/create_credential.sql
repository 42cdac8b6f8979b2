-- Stores a credential's digest; the days until it expires are counted by the database's clock.
INSERT INTO credentials (id, account_id, name, digest, prefix, allowed_models, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(days => $7))
RETURNING id, account_id, name, prefix, allowed_models, expires_at, revoked_at, created_at
