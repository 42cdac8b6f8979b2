-- Makes everybody else who appends to the ledger wait until the commit; the time to book at.
SELECT clock_timestamp() AS booked_at FROM ledger_head FOR NO KEY UPDATE
