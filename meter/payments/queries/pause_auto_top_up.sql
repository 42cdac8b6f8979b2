-- Charges nothing more until the account says so again.
UPDATE auto_top_ups SET paused_reason = $2, updated_at = clock_timestamp()
WHERE account_id = $1 AND paused_reason IS NULL RETURNING account_id
