-- The number of identities that an account has of other issuers, ended ones included.
SELECT count(*) FROM credentials WHERE account_id = $1 AND kind = 'identity' AND issuer_id <> $2
