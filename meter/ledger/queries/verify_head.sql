-- The newest batch of the ledger's chain.
SELECT number, hash FROM ledger_head
