-- The state of a credential ($1), of one of its secrets ($2) and of one of its passes ($3).
SELECT c.id, c.kind, c.account_id, c.name, c.revoked_at, c.suspended_at, c.expires_at, c.issuer_id,
       coalesce(i.is_enabled, true) AS is_issuer_enabled,
       s.digest IS NOT NULL AS has_secret, s.ends_at AS secret_ends_at,
       x.id IS NOT NULL AS has_pass, x.revoked_at AS pass_revoked_at,
       x.expires_at AS pass_expires_at, clock_timestamp() AS now
FROM credentials c
LEFT JOIN issuers i ON i.id = c.issuer_id
LEFT JOIN credential_secrets s ON s.credential_id = c.id AND s.digest = $2
LEFT JOIN passes x ON x.credential_id = c.id AND x.id = $3
WHERE c.id = $1
