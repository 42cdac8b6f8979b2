-- Locks such an account. No row where another transaction holds the lock, or where nothing is due.
SELECT balance_picos, held_picos FROM accounts
WHERE id = $1 AND next_expiry <= least($2, clock_timestamp())
FOR NO KEY UPDATE SKIP LOCKED
