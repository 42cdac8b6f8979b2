-- Keeps an event that a sink refuses.
INSERT INTO parked_events (sink_id, position, account_id, event, error)
VALUES ($1, $2, $3, $4::json, $5)
ON CONFLICT (sink_id, position) DO UPDATE SET error = excluded.error, is_replayed = false,
    parked_at = clock_timestamp()
