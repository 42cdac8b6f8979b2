-- The transactions that write postings or usage records at this moment. Each has locked the table
-- before it draws a position, and keeps the lock until its end.
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation IN ('settlements'::regclass, 'usage_rows'::regclass, 'posting_rows'::regclass)
