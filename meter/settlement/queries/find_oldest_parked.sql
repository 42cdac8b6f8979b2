-- Seconds for which the oldest parked ending has waited; nothing where none waits.
SELECT extract(epoch FROM clock_timestamp() - parked_at)::float8 AS waited_s
FROM parked_endings ORDER BY id LIMIT 1
