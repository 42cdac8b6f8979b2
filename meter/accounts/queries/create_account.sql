-- Creates an account.
INSERT INTO accounts (id, email, name, plan_id, markup_bps, requests_per_minute, tokens_per_minute,
                      concurrent_requests, requests_per_day, requests_per_month, may_manage_keys)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
RETURNING id, email, name, plan_id, markup_bps, is_suspended, balance_picos, held_picos,
          0::bigint AS expired_picos, created_at, requests_per_minute, tokens_per_minute,
          concurrent_requests, requests_per_day, requests_per_month, may_manage_keys
