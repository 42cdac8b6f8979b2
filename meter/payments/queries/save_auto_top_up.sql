-- Switches an account's automatic top-ups on, or changes them; a pause ends.
INSERT INTO auto_top_ups (account_id, threshold_picos, amount_picos, ceiling_picos)
VALUES ($1, $2, $3, $4)
ON CONFLICT (account_id) DO UPDATE SET threshold_picos = $2, amount_picos = $3,
    ceiling_picos = $4, paused_reason = NULL, declines = 0, next_attempt_at = clock_timestamp(),
    updated_at = clock_timestamp()
