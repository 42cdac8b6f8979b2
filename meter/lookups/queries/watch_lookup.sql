-- Asks again later about a request whose record says that it cost nothing: it may not be priced yet.
UPDATE lookups SET
    reason = 'zero_record', is_decided = is_decided OR $3, due_at = clock_timestamp() + $2::interval
WHERE hold_id = $1
