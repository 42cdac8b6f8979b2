-- Stores arrivals that contradict the recorded usage; they change nothing else. Of one hold, the
-- first $4 are kept: a log that is read again and again brings the same ones.
INSERT INTO settlement_conflicts (hold_id, kind, arrived)
SELECT a.hold_id, a.kind, a.arrived
FROM unnest($1::uuid[], $2::text[], $3::jsonb[]) AS a (hold_id, kind, arrived)
WHERE (SELECT count(*) FROM settlement_conflicts c WHERE c.hold_id = a.hold_id) < $4
