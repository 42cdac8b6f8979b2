-- Changes a sink; it is tried at once.
UPDATE sinks SET url = $2, event_code = $3, source = $4, plan_code = $5, sealed = $6,
    key_version = $7, state = $8, next_attempt_at = clock_timestamp(), taken_by = NULL,
    taken_until = NULL
WHERE id = $1
