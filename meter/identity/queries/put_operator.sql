-- Stores the token of an administrator; the token before is no longer accepted.
INSERT INTO operators (name, digest) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, created_at = clock_timestamp()
WHERE operators.digest <> excluded.digest
