-- Opens the account of an issuer's subject, as long as the issuer is believed; an unknown plan is
-- passed over.
INSERT INTO accounts (id, email, name, plan_id)
SELECT $1, $2, $3, coalesce((SELECT p.id FROM plans p WHERE p.id = $4), 'standard')
FROM issuers i WHERE i.id = $5 AND i.is_enabled
ON CONFLICT DO NOTHING
RETURNING plan_id
