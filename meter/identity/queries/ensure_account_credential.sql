-- The credential that acts for an account where the account gave none; made where there is none.
INSERT INTO credentials (id, account_id, name, kind, scopes, created_by)
SELECT $2, a.id, 'Issued by administrators', 'issued', '{inference,models:read,usage:read}', 'system'
FROM accounts a WHERE a.id = $1
ON CONFLICT (account_id) WHERE kind = 'issued' DO NOTHING
