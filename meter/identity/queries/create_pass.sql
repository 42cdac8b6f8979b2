-- Stores a new pass.
INSERT INTO passes (id, credential_id, account_id, scopes, allowed_models, budget_picos, created_by,
                    created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
