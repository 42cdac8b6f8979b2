-- As lock_ended_holds, without waiting; returns the holds that another transaction decides about.
SELECT id FROM unnest($1::uuid[]) AS id
WHERE NOT pg_try_advisory_xact_lock(hashtextextended(id::text, 0))
