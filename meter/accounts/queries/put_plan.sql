-- Creates a plan or changes its terms; returns whether it is new.
INSERT INTO plans (id, name, markup_bps, requests_per_minute, tokens_per_minute,
                   concurrent_requests, key_requests_per_minute, key_tokens_per_minute,
                   key_concurrent_requests, max_keys, self_service_scopes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, markup_bps = excluded.markup_bps,
    requests_per_minute = excluded.requests_per_minute,
    tokens_per_minute = excluded.tokens_per_minute,
    concurrent_requests = excluded.concurrent_requests,
    key_requests_per_minute = excluded.key_requests_per_minute,
    key_tokens_per_minute = excluded.key_tokens_per_minute,
    key_concurrent_requests = excluded.key_concurrent_requests,
    max_keys = excluded.max_keys, self_service_scopes = excluded.self_service_scopes
RETURNING (xmax = 0) AS is_new
