-- Notes the outcome of an event.
UPDATE stripe_events SET state = $2, error = $3, done_at = clock_timestamp() WHERE id = $1
