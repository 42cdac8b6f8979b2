-- Locks an account's automatic top-ups, so that two meters never judge its ceiling at once; no row
-- while another meter does.
SELECT amount_picos, ceiling_picos FROM auto_top_ups
WHERE account_id = $1 AND paused_reason IS NULL AND next_attempt_at <= clock_timestamp()
FOR UPDATE SKIP LOCKED
