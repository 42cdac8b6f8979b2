-- Locks some holds, in the one order in which everybody locks holds.
SELECT count(*) FROM (
    SELECT 1 FROM holds WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE
) locked
