-- Which of these accounts a sink has already.
SELECT account_id FROM sink_accounts WHERE sink_id = $1 AND account_id = ANY ($2)
