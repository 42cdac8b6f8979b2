-- The accounts that a sink has already, of those asked for.
SELECT account_id FROM sink_accounts WHERE sink_id = $1 AND account_id = ANY ($2)
