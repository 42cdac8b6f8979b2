-- Creates the credential of a subject, in the account that was opened for the subject and in no
-- other.
INSERT INTO credentials (id, account_id, name, kind, created_by, issuer_id, subject, token_issued_at)
SELECT $1, a.id, 'First seen', 'identity', $6, i.id, $5, $7
FROM accounts a CROSS JOIN issuers i
WHERE a.id = $2 AND a.email = $3 AND i.id = $4 AND i.is_enabled
ON CONFLICT DO NOTHING
RETURNING id
