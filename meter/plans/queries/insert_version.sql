-- Writes a version of a plan.
INSERT INTO plan_versions (plan_id, version, created_by, name, markup_bps, price_picos, period,
    included_picos, trial_days, trial_picos, position, is_most_popular, max_keys,
    self_service_scopes, requests_per_minute, tokens_per_minute, concurrent_requests,
    requests_per_day, requests_per_month, key_requests_per_minute, key_tokens_per_minute,
    key_concurrent_requests, key_requests_per_day, key_requests_per_month, own_key_fee_bps)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25)
