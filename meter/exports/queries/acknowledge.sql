-- Moves the position of a sink that worker $2 sends to; no row where it is no longer this worker's.
-- Events that were parked before have the position 0, and leave it where it is.
UPDATE sinks SET position = greatest(position, $3), sent = sent + $4, failures = 0, error = NULL,
    taken_until = clock_timestamp() + make_interval(secs => $5),
    oldest_at = CASE WHEN $3 = 0 THEN oldest_at ELSE $6 END
WHERE id = $1 AND taken_by = $2 AND state = 'active'
RETURNING id
