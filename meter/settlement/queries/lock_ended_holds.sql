-- One at a time for each of some ended holds, in one order; their rows are immutable, so the
-- lock is on the number that their id comes to.
SELECT pg_advisory_xact_lock(number)
FROM (SELECT DISTINCT hashtextextended(id::text, 0) AS number
      FROM unnest($1::uuid[]) AS id ORDER BY 1) numbers
