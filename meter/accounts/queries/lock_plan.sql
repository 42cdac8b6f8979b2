-- One plan, locked until the commit.
SELECT id, name, markup_bps, requests_per_minute, tokens_per_minute, concurrent_requests,
       key_requests_per_minute, key_tokens_per_minute, key_concurrent_requests, max_keys,
       self_service_scopes
FROM plans WHERE id = $1 FOR NO KEY UPDATE
