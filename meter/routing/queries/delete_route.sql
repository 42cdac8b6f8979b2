-- Removes a route; returns its id.
DELETE FROM routes WHERE id = $1 RETURNING id
