-- Every credential of a subject, in all accounts.
SELECT id, account_id, revoked_at FROM credentials
WHERE coalesce(issuer_id, '') = $1 AND (subject = $2 OR ($1 <> '' AND starts_with(subject, $3)))
