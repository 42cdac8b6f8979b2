-- Accounts, newest first, after the one at ($2, $3), optionally with one email.
SELECT id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos,
       expired_credit(id, next_expiry, clock_timestamp()) AS expired_picos, created_at,
       requests_per_minute, tokens_per_minute, concurrent_requests, requests_per_day,
       requests_per_month, may_manage_keys
FROM accounts
WHERE ($1::text IS NULL OR lower(email) = lower($1))
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
ORDER BY created_at DESC, id DESC
LIMIT $4
