-- What new holds of an account ($1) may use. Locks nothing: a hold judges the money again.
SELECT balance_picos - held_picos FROM accounts WHERE id = $1
