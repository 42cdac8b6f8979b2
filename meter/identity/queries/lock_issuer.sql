-- An issuer, locked until the commit.
SELECT id, url, terms, is_enabled FROM issuers WHERE id = $1 FOR UPDATE
