-- Lets a subject act for an account from now on.
INSERT INTO credentials (id, account_id, name, kind, issuer_id, subject, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)
