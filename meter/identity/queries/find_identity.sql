-- The credential of a subject: the one that an administrator linked, else the one made at first
-- use.
SELECT c.id, c.account_id, c.token_issued_at, a.plan_id,
       c.revoked_at IS NULL AND c.suspended_at IS NULL AS is_live
FROM credentials c JOIN accounts a ON a.id = c.account_id
WHERE c.kind = 'identity' AND coalesce(c.issuer_id, '') = $1 AND c.subject = ANY ($2::text[])
  AND (c.subject = $3 OR c.created_by <> $4)
ORDER BY c.created_by = $4 LIMIT 1
