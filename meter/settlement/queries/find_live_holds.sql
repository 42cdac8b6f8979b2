-- The live ones among these holds, without a lock.
SELECT id FROM holds WHERE id = ANY ($1::uuid[])
