-- One credential of an account, of any kind.
SELECT * FROM listed_credentials WHERE account_id = $1 AND id = $2
