-- Creates a key; its secret is stored in a table of its own.
INSERT INTO credentials (id, account_id, name, prefix, kind, scopes, allowed_models,
                         allowed_addresses, expires_at, requests_per_minute, tokens_per_minute,
                         concurrent_requests, requests_per_day, requests_per_month,
                         budget_day_picos, budget_week_picos, budget_month_picos,
                         budget_total_picos, tags, own_key_mode, created_by)
VALUES ($1, $2, $3, $4, 'key', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
        $18::jsonb, $19, $20)
