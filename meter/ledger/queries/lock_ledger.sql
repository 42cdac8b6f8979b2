-- Locks the head of the ledger until the commit; returns the time to book at.
SELECT clock_timestamp() AS booked_at FROM ledger_head FOR NO KEY UPDATE
