-- The youngest checkpoint, and whether its sums and its own hash are still as they were sealed. No
-- row before the first.
SELECT c.number, c.last_batch, c.positions, c.hashes, c.hash,
       c.sums_hash = checkpoint_sums_hash()
       AND c.hash = sha256(c.previous_hash || record_send(
           ROW(c.last_batch, c.positions, c.hashes, c.sums_hash)))
       AND c.previous_hash = coalesce(
           (SELECT b.hash FROM ledger_checkpoints b WHERE b.number = c.number - 1),
           sha256('tollkeeper checkpoints')) AS is_whole
FROM ledger_checkpoints c ORDER BY c.number DESC LIMIT 1
