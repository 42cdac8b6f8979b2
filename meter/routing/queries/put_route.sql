-- Creates or changes a route, without its providers.
INSERT INTO routes AS r (id, pattern, position) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET
    pattern = excluded.pattern, position = excluded.position, updated_at = clock_timestamp()
