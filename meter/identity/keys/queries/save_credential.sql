-- Stores the terms of a key. The caller holds the lock of the account.
UPDATE credentials SET
    name = $2, scopes = $3, allowed_models = $4, allowed_addresses = $5, expires_at = $6,
    requests_per_minute = $7, tokens_per_minute = $8, concurrent_requests = $9,
    budget_day_picos = $10, budget_week_picos = $11, budget_month_picos = $12,
    budget_total_picos = $13, tags = $14::jsonb
WHERE id = $1
