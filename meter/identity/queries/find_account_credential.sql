-- Returns whether the account has this credential.
SELECT 1 FROM credentials WHERE id = $2 AND account_id = $1
