-- Counts an attempt of an account in its window of $2; returns how many there are now.
INSERT INTO coupon_attempts AS a (account_id, window_began, attempts)
VALUES ($1, clock_timestamp(), 1)
ON CONFLICT (account_id) DO UPDATE SET
    window_began = CASE WHEN a.window_began <= clock_timestamp() - $2::interval
                        THEN clock_timestamp() ELSE a.window_began END,
    attempts = CASE WHEN a.window_began <= clock_timestamp() - $2::interval
                    THEN 1 ELSE a.attempts + 1 END
RETURNING attempts
