-- Stores the terms of an account that the caller has locked.
UPDATE accounts SET
    name = $2, plan_id = $3, markup_bps = $4, requests_per_minute = $5, tokens_per_minute = $6,
    concurrent_requests = $7, may_manage_keys = $8, is_suspended = $9
WHERE id = $1
