-- Takes the active sinks that have something to send and are not sent to by others, for $2 seconds.
-- A sink that took everything is not written to.
UPDATE sinks s SET taken_by = $1, taken_until = clock_timestamp() + make_interval(secs => $2)
FROM (SELECT k.id FROM sinks k
      WHERE k.state = 'active' AND k.next_attempt_at <= clock_timestamp()
        AND (k.taken_until IS NULL OR k.taken_until < clock_timestamp())
        AND (k.position < (SELECT last_value FROM postings_position)
             OR EXISTS (SELECT FROM parked_events e WHERE e.sink_id = k.id AND e.is_replayed))
      FOR UPDATE SKIP LOCKED) due
WHERE s.id = due.id
RETURNING s.*
