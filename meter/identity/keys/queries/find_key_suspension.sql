-- Returns whether the last suspension of a key was made by an administrator.
SELECT coalesce((detail ->> 'by_administrator')::boolean, false) FROM audit_log
WHERE account_id = $1 AND subject = $2 AND action = 'key.suspended'
ORDER BY id DESC LIMIT 1
