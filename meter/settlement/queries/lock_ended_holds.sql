-- Takes an advisory lock for each of some ended holds, in one order. Their rows are immutable and
-- cannot be locked, so the key of the lock is a number made from the id.
SELECT pg_advisory_xact_lock(number)
FROM (SELECT DISTINCT hashtextextended(id::text, 0) AS number
      FROM unnest($1::uuid[]) AS id ORDER BY 1) numbers
