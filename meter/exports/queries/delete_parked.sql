-- Forgets parked events; returns how many there were.
WITH gone AS (DELETE FROM parked_events WHERE sink_id = $1 AND position = ANY ($2) RETURNING 1)
SELECT count(*) FROM gone
