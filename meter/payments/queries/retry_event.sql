-- Puts an event off.
UPDATE stripe_events SET next_attempt_at = clock_timestamp() + $2::interval, error = $3
WHERE id = $1 AND state = 'waiting'
