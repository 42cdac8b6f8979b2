-- An account's keys, newest first, after the one at ($2, $3), of one status or with one tag.
SELECT * FROM listed_credentials c
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
