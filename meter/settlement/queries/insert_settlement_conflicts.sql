-- Keeps arrivals that contradict what is recorded; nothing else changes because of them.
INSERT INTO settlement_conflicts (hold_id, kind, arrived)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::jsonb[])
