-- Note how far a log was read, by the reader who was the last to be here, at $5; no row when another has taken over.
UPDATE log_positions
SET inode = $2, fingerprint = $3, offset_bytes = $4, read_at = clock_timestamp()
WHERE path = $1 AND read_at = $5
RETURNING read_at
