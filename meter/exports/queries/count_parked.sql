-- The number of events that a sink refused.
SELECT count(*) FROM parked_events WHERE sink_id = $1
