-- Seconds until the next reconciliation is due, $1 seconds after the last one.
SELECT coalesce(extract(epoch FROM max(recorded_at) - clock_timestamp()) + $1::float8, 0)::float8
FROM reconciliations
