-- Removes a name of a model; returns it.
DELETE FROM model_aliases WHERE name = $1 RETURNING name
