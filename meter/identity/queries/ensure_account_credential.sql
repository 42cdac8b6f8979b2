-- The credential for requests of an account without a credential of its own; created if it is
-- missing.
INSERT INTO credentials (id, account_id, name, kind, scopes, created_by)
SELECT $2, a.id, 'Issued by administrators', 'issued', '{inference,models:read,usage:read}', 'system'
FROM accounts a WHERE a.id = $1
ON CONFLICT (account_id) WHERE kind = 'issued' DO NOTHING
