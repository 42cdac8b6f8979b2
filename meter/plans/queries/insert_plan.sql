-- Creates a plan, whose first version follows; no row where it exists.
INSERT INTO plans (id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id
