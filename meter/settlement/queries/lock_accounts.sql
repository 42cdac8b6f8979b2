-- Locks the accounts $1 and returns those that it left out, of the doubtful ones $2.
SELECT lock_accounts($1::text[], $2::text[])
