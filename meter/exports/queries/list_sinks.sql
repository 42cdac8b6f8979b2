-- All sinks, with how many events each refused and how far it is behind.
SELECT s.*, (SELECT count(*) FROM parked_events e WHERE e.sink_id = s.id) AS parked,
       greatest(0, p.last_value - s.position) AS behind,
       coalesce(extract(epoch FROM clock_timestamp() - s.oldest_at), 0)::float8 AS lag_s
FROM sinks s, postings_position p
WHERE $1::text IS NULL OR s.id = $1
ORDER BY s.id
