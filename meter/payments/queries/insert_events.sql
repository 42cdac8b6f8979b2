-- Stores events, each once; returns the ids of those that are new.
INSERT INTO stripe_events (id, type, object_id, is_live, happened_at, source, state, done_at)
SELECT e.id, e.type, e.object_id, $4, e.happened_at, $6,
       CASE WHEN e.is_known THEN 'waiting' ELSE 'unknown' END,
       CASE WHEN e.is_known THEN NULL ELSE clock_timestamp() END
FROM unnest($1::text[], $2::text[], $3::text[], $5::timestamptz[], $7::boolean[])
    AS e (id, type, object_id, happened_at, is_known)
ON CONFLICT (id) DO NOTHING
RETURNING id
