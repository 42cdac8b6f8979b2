-- $2 is NULL where settlements of batches after $1 may have any position up to now.
UPDATE usage_position SET batch = $1, seq = coalesce($2, seq)
