-- Forgets parked endings that are settled, or parked anew.
DELETE FROM parked_endings WHERE id = ANY ($1::bigint[])
