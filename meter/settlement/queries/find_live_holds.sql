-- Which of these holds are live, without a lock on them.
SELECT id FROM holds WHERE id = ANY ($1::uuid[])
