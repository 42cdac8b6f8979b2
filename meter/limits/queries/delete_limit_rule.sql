-- Removes a limit rule; returns its id.
DELETE FROM limit_rules WHERE id = $1 RETURNING id
