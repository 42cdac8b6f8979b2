-- The usage records with positions after $1, up to $2, in order.
SELECT seq, hold_id, revision, kind, account_id, credential_id, model_id, endpoint, started_at,
       recorded_at, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,
       reasoning_tokens, provider_cost_picos, charge_picos, own_key_cost_picos
FROM usage_records WHERE seq > $1 AND seq <= $2
ORDER BY seq
