-- Stores a report; reports are never changed.
INSERT INTO reconciliations (is_ok, report) VALUES ($1, $2::jsonb)
RETURNING id, is_ok, report, recorded_at
