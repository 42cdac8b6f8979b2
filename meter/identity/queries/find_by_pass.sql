-- The principal behind a live pass, with what the pass itself may do at most.
SELECT p.*, x.scopes AS pass_scopes, x.allowed_models AS pass_models,
       least(p.expires_at, x.expires_at) AS ends_at
FROM passes x
JOIN live_principals p ON p.credential_id = x.credential_id
WHERE x.id = $1 AND x.revoked_at IS NULL AND x.expires_at > clock_timestamp()
