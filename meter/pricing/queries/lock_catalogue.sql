-- One sync at a time, whichever process runs it.
SELECT pg_advisory_xact_lock(7261994310482114)
