-- Removes a limit rule; tells which it was.
DELETE FROM limit_rules WHERE id = $1 RETURNING id
