-- The events that a sink refused, after the position $2, in order.
SELECT position, account_id, event::text AS event, error, parked_at, is_replayed
FROM parked_events WHERE sink_id = $1 AND position > $2 ORDER BY position LIMIT $3
