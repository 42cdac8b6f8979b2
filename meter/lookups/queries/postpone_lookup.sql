-- Makes a look-up due later. An outage of the provider does not shorten the time for finding out.
UPDATE lookups SET
    due_at = clock_timestamp() + $2::interval,
    deadline_at = CASE WHEN $3 THEN deadline_at + $2::interval ELSE deadline_at END,
    is_decided = is_decided OR $4
WHERE hold_id = $1
