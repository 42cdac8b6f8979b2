-- Takes over the reading of a log that has no reader, or whose reader was last seen $2 seconds ago
-- or more; no row if another reader is active.
INSERT INTO log_positions AS held (path, inode, fingerprint, offset_bytes, read_at)
VALUES ($1, 0, ''::bytea, 0, clock_timestamp())
ON CONFLICT (path) DO UPDATE SET read_at = clock_timestamp()
WHERE held.read_at < clock_timestamp() - make_interval(secs => $2)
   OR held.read_at > clock_timestamp() + make_interval(secs => $2)
RETURNING inode, fingerprint, offset_bytes, read_at
