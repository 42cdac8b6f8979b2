-- Stores the position of the present reader of a log at $5; no row if another reader has taken
-- over.
UPDATE log_positions
SET inode = $2, fingerprint = $3, offset_bytes = $4, read_at = clock_timestamp()
WHERE path = $1 AND read_at = $5
RETURNING read_at
