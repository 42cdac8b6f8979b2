-- The credential of a pass ($1), of a subject ($3) of an issuer ($2), or of an account ($4) itself.
SELECT credential_id AS id FROM passes WHERE id = $1
UNION ALL
SELECT id FROM credentials WHERE coalesce(issuer_id, '') = $2 AND subject = ANY ($3::text[])
UNION ALL
SELECT id FROM credentials WHERE kind = 'issued' AND account_id = $4
LIMIT 1
