-- The last batch that the youngest checkpoint has; 0 without one.
SELECT coalesce((SELECT last_batch FROM ledger_checkpoints ORDER BY number DESC LIMIT 1), 0)
