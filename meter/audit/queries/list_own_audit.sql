-- Lines of the audit log about an account, newest first, as the account may see them: an author is
-- named only if it belongs to the account, and terms between us and the account are left out.
SELECT l.id, l.at, l.action, l.subject, l.account_id, l.detail,
       CASE WHEN EXISTS (SELECT FROM credentials c WHERE c.id = split_part(l.actor, ':', 2)
                         AND c.account_id = l.account_id)
              OR EXISTS (SELECT FROM passes p WHERE p.id = split_part(l.actor, ':', 2)
                         AND p.account_id = l.account_id)
              OR l.actor = 'anybody'
            THEN l.actor ELSE 'administrator' END AS actor
FROM audit_log l
WHERE l.account_id = $1
  AND split_part(l.action, '.', 1) IN ('key', 'pass', 'credit', 'provider_key')
  AND ($2::text IS NULL OR starts_with(l.action, $2))
  AND ($3::bigint IS NULL OR l.id < $3)
ORDER BY l.id DESC
LIMIT $4
