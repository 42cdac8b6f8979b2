-- The youngest checkpoint, which anchors the heads of all chains. No row before the first.
SELECT number, hash FROM ledger_checkpoints ORDER BY number DESC LIMIT 1
