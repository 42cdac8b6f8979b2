-- The amount that new holds of an account ($1) may use. Takes no lock: placing a hold judges the
-- money again.
SELECT balance_picos - held_picos - expired_credit(id, next_expiry, clock_timestamp())
FROM accounts WHERE id = $1
