-- An account's credentials, newest first, after the one at ($2, $3).
SELECT id, account_id, name, prefix, allowed_models, expires_at, revoked_at, created_at
FROM credentials
WHERE account_id = $1
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
ORDER BY created_at DESC, id DESC
LIMIT $4
