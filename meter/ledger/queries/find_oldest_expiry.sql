-- The earliest expiry of credit that is still to be taken by $1; NULL without any.
SELECT min(next_expiry) FROM accounts WHERE next_expiry <= least($1, clock_timestamp())
