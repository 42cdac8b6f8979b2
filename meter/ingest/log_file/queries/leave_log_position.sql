-- Gives up the reading of a log, so that another reader need not wait for $3 seconds.
UPDATE log_positions
SET read_at = clock_timestamp() - make_interval(secs => $3) - interval '1 second'
WHERE path = $1 AND read_at = $2
