-- The usage records of one request, with the provider whose price it has.
SELECT u.model_id, u.credential_id, u.endpoint, u.generation_id, u.request_id, u.started_at,
       u.prompt_tokens, u.completion_tokens, u.cached_tokens, u.cache_write_tokens,
       u.reasoning_tokens, u.provider_cost_picos, u.charge_picos, u.own_key_cost_picos,
       u.price_source, u.source, u.latency_ms, u.time_to_first_byte_ms, u.response_flags,
       u.is_streaming, p.provider
FROM usage_records u
LEFT JOIN prices p ON p.id = u.price_id
WHERE u.hold_id = $1 AND u.placed_at = $2
ORDER BY u.revision
