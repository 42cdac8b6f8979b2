-- Parked events that an administrator wants to be sent again, in order.
SELECT position AS seq, account_id, event::text AS event FROM parked_events
WHERE sink_id = $1 AND is_replayed ORDER BY position LIMIT $2
