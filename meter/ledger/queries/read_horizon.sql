-- The youngest number that a batch may have by now. Batches up to it may still be uncommitted.
SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS number
FROM ledger_batch_numbers
