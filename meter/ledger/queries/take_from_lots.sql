-- Takes an amount from the lots of an account with the mark $2, the earliest expiry first.
SELECT take_from_lots($1, $2, clock_timestamp(), $3)
