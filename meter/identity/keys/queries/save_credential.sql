-- Stores the terms of a key. The caller holds the lock of the account.
UPDATE credentials SET
    name = $2, scopes = $3, allowed_models = $4, allowed_addresses = $5, expires_at = $6,
    requests_per_minute = $7, tokens_per_minute = $8, concurrent_requests = $9,
    requests_per_day = $10, requests_per_month = $11, budget_day_picos = $12,
    budget_week_picos = $13, budget_month_picos = $14, budget_total_picos = $15,
    tags = $16::jsonb, own_key_mode = $17
WHERE id = $1
