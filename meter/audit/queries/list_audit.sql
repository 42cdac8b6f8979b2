-- Lines of the audit log, newest first, before the one at $4; each filter may be NULL.
SELECT id, at, actor, action, subject, account_id, detail FROM audit_log
WHERE ($1::text IS NULL OR account_id = $1)
  AND ($2::text IS NULL OR starts_with(action, $2))
  AND ($3::text IS NULL OR actor = $3)
  AND ($4::bigint IS NULL OR id < $4)
ORDER BY id DESC
LIMIT $5
