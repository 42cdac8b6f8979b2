-- Counts for administrators: conflicts and policy decisions since the last run, and holds that
-- wait, with those that wait too long.
SELECT (SELECT count(*) FROM settlement_conflicts WHERE recorded_at > last.at)
           AS settlement_conflicts,
       (SELECT count(*) FROM usage_records
        WHERE kind = 'provisional' AND recorded_at > last.at) AS policy_charges,
       (SELECT count(*) FROM ended_holds
        WHERE reason IN ('not_billed', 'failed') AND ended_at > last.at) AS policy_voids,
       waiting.*
FROM (SELECT coalesce(max(recorded_at), '-infinity') AS at FROM reconciliations) last,
     (SELECT count(*) FILTER (WHERE h.state = 'unknown') AS unknown_holds,
             count(*) FILTER (WHERE h.state = 'open' AND h.expires_at < clock_timestamp())
                 AS stale_holds,
             count(*) FILTER (WHERE h.state = 'unknown' AND (
                 l.hold_id IS NULL OR l.deadline_at < clock_timestamp() - interval '5 minutes'))
                 AS stuck_holds
      FROM holds h LEFT JOIN lookups l ON l.hold_id = h.id) waiting
