-- The number of webhooks of an account. The caller has the account locked.
SELECT count(*) FROM webhooks WHERE account_id = $1
