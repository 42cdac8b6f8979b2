-- One process at a time makes or removes signing keys; until the end of the transaction.
SELECT pg_advisory_xact_lock(5081340927716650211)
