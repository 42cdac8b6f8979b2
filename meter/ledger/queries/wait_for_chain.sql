-- Waits until nobody is writing a batch to this chain; others take another one meanwhile.
SELECT id FROM ledger_chains WHERE id = $1 FOR NO KEY UPDATE
