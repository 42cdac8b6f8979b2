-- Takes events whose turn it is, for as long as the lease; whoever dies meanwhile leaves them.
UPDATE stripe_events SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + $2::interval
WHERE id IN (
    SELECT id FROM stripe_events
    WHERE state = 'waiting' AND is_live = $1 AND next_attempt_at <= clock_timestamp()
    ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING id, type, object_id, is_live, happened_at, attempts
