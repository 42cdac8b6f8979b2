-- Notes why a sink took nothing, and when to try again: 1 s later, then twice as long up to $4 s.
UPDATE sinks SET taken_by = NULL, taken_until = NULL, failures = failures + 1, error = $3,
    next_attempt_at = clock_timestamp()
        + make_interval(secs => least(power(2, least(failures, 20)), $4::float8)),
    oldest_at = coalesce($5, oldest_at)
WHERE id = $1 AND taken_by = $2
