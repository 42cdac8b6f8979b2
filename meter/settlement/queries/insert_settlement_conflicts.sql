-- Stores arrivals that contradict the recorded usage; they change nothing else.
INSERT INTO settlement_conflicts (hold_id, kind, arrived)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::jsonb[])
