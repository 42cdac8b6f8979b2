-- Locks the catalogue: one sync at a time, in all processes.
SELECT pg_advisory_xact_lock(7261994310482114)
