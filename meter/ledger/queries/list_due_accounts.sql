-- Accounts with credit that expired by $1, after the one at ($2, $3). Credit expires by the clock of
-- the database: $1 can only be later.
SELECT id, next_expiry FROM accounts
WHERE next_expiry <= least($1, clock_timestamp())
  AND ($2::timestamptz IS NULL OR (next_expiry, id) > ($2, $3::text))
ORDER BY next_expiry, id LIMIT $4
