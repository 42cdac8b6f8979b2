-- Puts the next attempt off; the pause grows with each decline in a row.
UPDATE auto_top_ups SET declines = declines + 1,
    next_attempt_at = clock_timestamp() + $2::interval
WHERE account_id = $1
