-- The first day of each month that has rows of its own about requests.
SELECT DISTINCT to_date(right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS opens
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('usage_rows'::regclass, 'posting_rows'::regclass)
  AND c.relname ~ '_\d{4}_\d{2}$'
ORDER BY opens
