-- One credential of an account, of any kind.
SELECT c.id, c.kind, c.account_id, c.name, c.prefix, c.scopes, c.allowed_models,
       c.allowed_addresses, c.expires_at, c.requests_per_minute, c.tokens_per_minute,
       c.concurrent_requests, c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
       c.budget_total_picos, c.tags, c.suspended_at, c.revoked_at, c.created_at, c.created_by,
       u.last_used_at,
       (SELECT max(s.ends_at) FROM credential_secrets s
        WHERE s.credential_id = c.id AND s.ends_at > clock_timestamp()) AS previous_ends_at
FROM credentials c
LEFT JOIN credential_uses u ON u.credential_id = c.id
WHERE c.account_id = $1 AND c.id = $2
