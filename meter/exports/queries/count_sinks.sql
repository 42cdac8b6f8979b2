-- The number of sinks, ended ones included. One administrator at a time.
SELECT count(*) FROM (SELECT pg_advisory_xact_lock(7261994310482131)) l, sinks
