-- Keeps every month from being dropped until the commit. Runs before the snapshot is taken, because
-- a dropped partition is missing from older snapshots too.
LOCK TABLE ended_holds, usage_records, postings, entries, ledger_batches IN ACCESS SHARE MODE
