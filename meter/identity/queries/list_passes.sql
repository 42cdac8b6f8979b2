-- An account's passes, newest first, recently ended ones included; all, or those of one credential.
SELECT x.id, x.credential_id, x.account_id, x.scopes, x.allowed_models, x.budget_picos,
       x.created_by, x.created_at, x.expires_at, x.revoked_at,
       coalesce(s.spent_picos, 0) AS spent_picos
FROM passes x
LEFT JOIN spending s ON s.subject = x.id AND s.period = 'total' AND s.starts_on = '1970-01-01'
WHERE x.account_id = $1 AND ($2::text IS NULL OR x.credential_id = $2)
  AND ($3::timestamptz IS NULL OR (x.created_at, x.id) < ($3, $4))
ORDER BY x.created_at DESC, x.id DESC
LIMIT $5
