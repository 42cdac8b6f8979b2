-- The sinks that did not take all usage of the months from $1 up to $2.
SELECT s.id FROM sinks s
WHERE s.state <> 'ended' AND EXISTS (
    SELECT FROM usage_records r
    WHERE r.seq > s.position AND r.placed_at >= $1::date::timestamp AT TIME ZONE 'UTC'
      AND r.placed_at < $2::date::timestamp AT TIME ZONE 'UTC')
ORDER BY s.id
