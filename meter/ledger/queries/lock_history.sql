-- Lets no month be dropped until the commit; to be said before the snapshot is taken, because a
-- partition that is dropped is gone from older snapshots too.
LOCK TABLE ended_holds, usage_records, postings, entries, ledger_batches IN ACCESS SHARE MODE
