-- Forgets the accounts that a sink has: it is another place now.
DELETE FROM sink_accounts WHERE sink_id = $1
