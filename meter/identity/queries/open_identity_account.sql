-- Creates the account of an issuer's subject, if the issuer is trusted; an unknown plan is ignored.
INSERT INTO accounts (id, email, name, plan_id)
SELECT $1, $2, $3, coalesce((SELECT p.id FROM plans p WHERE p.id = $4), 'standard')
FROM issuers i WHERE i.id = $5 AND i.is_enabled
ON CONFLICT DO NOTHING
RETURNING plan_id
