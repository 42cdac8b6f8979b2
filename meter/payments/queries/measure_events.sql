-- The age of the oldest event that waits, in seconds, and the number of parked ones.
SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - min(received_at))::float8
                 FROM stripe_events WHERE state = 'waiting'), 0) AS oldest_s,
       (SELECT count(*) FROM stripe_events WHERE state = 'parked') AS parked
