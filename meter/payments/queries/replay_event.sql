-- Lets an event be followed once more.
UPDATE stripe_events SET state = 'waiting', next_attempt_at = clock_timestamp(), attempts = 0,
    done_at = NULL
WHERE id = $1 RETURNING *
