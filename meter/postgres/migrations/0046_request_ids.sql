-- As before, with Envoy's id of the request, which the client has in the header x-request-id. Rows of
-- usage have it in the hold that they ended; it is looked up only where a query asks for it.
CREATE OR REPLACE VIEW usage_records AS
SELECT u.hold_id, u.placed_at, u.revision, u.kind, u.account_id, u.credential_id, u.model_id,
       u.endpoint, u.generation_id, u.started_at, u.recorded_at, u.prompt_tokens,
       u.completion_tokens, u.cached_tokens, u.cache_write_tokens, u.reasoning_tokens,
       u.provider_cost_picos, u.charge_picos, u.excess_picos, u.markup_bps, u.price_id,
       u.price_source, u.latency_ms, u.time_to_first_byte_ms, u.status_code, u.response_flags,
       u.is_streaming, u.source, u.seq, u.own_key_cost_picos,
       (SELECT e.request_id FROM ended_hold_rows e
        WHERE e.id = u.hold_id AND e.placed_at = u.placed_at) AS request_id
FROM usage_rows u
UNION ALL
SELECT id, placed_at, 0::smallint, 'settlement', account_id, credential_id, model_id,
       coalesce(endpoint, 'chat_completions'), generation_id, started_at, recorded_at,
       prompt_tokens, completion_tokens, coalesce(cached_tokens, 0),
       coalesce(cache_write_tokens, 0), coalesce(reasoning_tokens, 0), provider_picos,
       -customer_picos, 0::bigint, markup_bps, price_id, coalesce(price_source, 'provider'),
       latency_ms, time_to_first_byte_ms, coalesce(status_code, 200),
       coalesce(response_flags, ''), is_streaming, coalesce(source, 'stream'), seq,
       NULL::bigint, request_id
FROM settlements;
