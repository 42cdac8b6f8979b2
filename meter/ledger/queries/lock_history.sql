-- Keeps every month from being dropped until the commit. Runs before the snapshot is taken, because
-- a dropped partition is missing from older snapshots too.
LOCK TABLE ended_hold_rows, usage_rows, settlements, kept_settlements, posting_rows, entry_rows,
    ledger_batches IN ACCESS SHARE MODE
