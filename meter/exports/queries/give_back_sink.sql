-- Ends the work of worker $2 at a sink.
UPDATE sinks SET taken_by = NULL, taken_until = NULL WHERE id = $1 AND taken_by = $2
