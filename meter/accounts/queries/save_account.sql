-- Stores the terms of an account that the caller has locked. Another plan ends the period, as it was.
UPDATE accounts SET
    name = $2, plan_version = CASE WHEN plan_id = $3 THEN plan_version END, plan_id = $3,
    markup_bps = $4, requests_per_minute = $5, tokens_per_minute = $6, concurrent_requests = $7,
    requests_per_day = $8, requests_per_month = $9, may_manage_keys = $10, is_suspended = $11
WHERE id = $1
