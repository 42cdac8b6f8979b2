-- The identities and certificates of an account, oldest first.
SELECT c.id, c.kind, c.issuer_id, c.subject, c.name, c.scopes, c.allowed_models,
       c.allowed_addresses, c.requests_per_minute, c.tokens_per_minute, c.concurrent_requests,
       c.requests_per_day, c.requests_per_month, c.suspended_at, c.revoked_at, c.created_at, c.created_by, c.last_used_at
FROM listed_credentials c
WHERE c.account_id = $1 AND c.kind <> 'key' AND ($2::text IS NULL OR c.id = $2)
ORDER BY c.created_at, c.id
LIMIT $3
