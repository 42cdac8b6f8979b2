-- Locks the credential of a pass; no row unless the credential and its account are live.
SELECT c.id, a.is_suspended,
       coalesce((SELECT h.changes FROM account_changes h
                 WHERE h.account_id = a.id
                   AND h.day = (clock_timestamp() AT TIME ZONE 'UTC')::date),
                0) AS changes_of_a_day
FROM credentials c
JOIN accounts a ON a.id = c.account_id
LEFT JOIN issuers i ON i.id = c.issuer_id
WHERE c.id = $1 AND c.account_id = $2 AND c.revoked_at IS NULL AND c.suspended_at IS NULL
  AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
  AND (c.issuer_id IS NULL OR i.is_enabled)
FOR NO KEY UPDATE OF c
