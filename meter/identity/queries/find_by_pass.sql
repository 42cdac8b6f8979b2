-- The principal of a live pass, with the limits of the pass itself.
SELECT p.*, x.scopes AS pass_scopes, x.allowed_models AS pass_models,
       x.budget_picos IS NOT NULL AS has_pass_budget, least(p.expires_at, x.expires_at) AS ends_at
FROM passes x
JOIN live_principals p ON p.credential_id = x.credential_id
WHERE x.id = $1 AND x.revoked_at IS NULL AND x.expires_at > clock_timestamp()
