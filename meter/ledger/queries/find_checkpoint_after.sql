-- The checkpoint that follows number $1, whose hash was $2, and whether it is the next one and signs
-- that one. No row after the youngest.
SELECT c.number, c.last_batch, c.positions, c.hashes, c.hash,
       c.number = $1 + 1
       AND c.previous_hash = coalesce($2, sha256('tollkeeper checkpoints'))
       AND c.hash = sha256(c.previous_hash || record_send(
           ROW(c.last_batch, c.positions, c.hashes, c.sums_hash))) AS is_next
FROM ledger_checkpoints c WHERE c.number > $1 ORDER BY c.number LIMIT 1
