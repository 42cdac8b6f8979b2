-- One account with its funds.
SELECT id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos,
       expired_credit(id, next_expiry, clock_timestamp()) AS expired_picos, created_at,
       requests_per_minute, tokens_per_minute, concurrent_requests, requests_per_day,
       requests_per_month, may_manage_keys
FROM accounts WHERE id = $1
