-- An account's keys, newest first, after the one at ($2, $3), of one status or with one tag.
SELECT c.id, c.kind, c.account_id, c.name, c.prefix, c.scopes, c.allowed_models,
       c.allowed_addresses, c.expires_at, c.requests_per_minute, c.tokens_per_minute,
       c.concurrent_requests, c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
       c.budget_total_picos, c.tags, c.suspended_at, c.revoked_at, c.created_at, c.created_by,
       u.last_used_at,
       (SELECT max(s.ends_at) FROM credential_secrets s
        WHERE s.credential_id = c.id AND s.ends_at > clock_timestamp()) AS previous_ends_at
FROM credentials c
LEFT JOIN credential_uses u ON u.credential_id = c.id
WHERE c.account_id = $1
  AND c.kind = 'key'
  AND ($2::timestamptz IS NULL OR (c.created_at, c.id) < ($2, $3::text))
  AND ($5::text IS NULL OR $5 = CASE
          WHEN c.revoked_at IS NOT NULL THEN 'revoked'
          WHEN c.expires_at <= clock_timestamp() THEN 'expired'
          WHEN c.suspended_at IS NOT NULL THEN 'suspended'
          ELSE 'active' END)
  AND ($6::text IS NULL OR c.tags ? $6)
  AND ($7::text IS NULL OR c.tags ->> $6 = $7)
ORDER BY c.created_at DESC, c.id DESC
LIMIT $4
