-- The principal behind a live credential; no row for unknown, revoked and expired alike.
SELECT c.id AS credential_id, a.id AS account_id, c.allowed_models, a.is_suspended,
       coalesce(a.markup_bps, p.markup_bps) AS markup_bps, p.requests_per_minute
FROM credentials c
JOIN accounts a ON a.id = c.account_id
JOIN plans p ON p.id = a.plan_id
WHERE c.digest = $1
  AND c.revoked_at IS NULL
  AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
