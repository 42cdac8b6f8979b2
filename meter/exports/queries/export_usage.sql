-- An account's usage records of holds placed between two instants, after the record ($4, $5, $6), in
-- order. Holds are placed moments before Envoy's start of the request; a day bounds the difference.
SELECT hold_id, revision, kind, account_id, credential_id, model_id, endpoint, generation_id,
       started_at, recorded_at, prompt_tokens, completion_tokens, cached_tokens,
       cache_write_tokens, reasoning_tokens, provider_cost_picos, charge_picos, own_key_cost_picos, latency_ms,
       status_code, is_streaming, request_id
FROM usage_records
WHERE account_id = $1 AND placed_at >= $2 AND placed_at < $3
  AND started_at >= $2::timestamptz - interval '1 day'
  AND started_at < $3::timestamptz + interval '1 day'
  AND ($4::timestamptz IS NULL
       OR (started_at >= $4 AND (started_at, hold_id, revision) > ($4, $5::uuid, $6::smallint)))
ORDER BY started_at, hold_id, revision
LIMIT $7
