-- Locks the signing keys until the commit: one process at a time creates or removes them.
SELECT pg_advisory_xact_lock(5081340927716650211)
