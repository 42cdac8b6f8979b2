-- How many identities of other issuers an account has, ended ones too.
SELECT count(*) FROM credentials WHERE account_id = $1 AND kind = 'identity' AND issuer_id <> $2
