-- Live holds with the price of their estimate, locked in the order that all transactions keep.
SELECT h.id, h.created_at AS placed_at, h.account_id, h.credential_id, h.model_id, h.endpoint,
       h.price_id, h.markup_bps, h.amount_picos, h.flat_cost_picos, h.max_tokens, h.state,
       h.pass_id, h.counted_tokens, h.token_buckets,
       h.generation_id, h.unknown_reason IS DISTINCT FROM 'no_entry' AS has_entry,
       p.model_id AS priced_model_id, p.provider, p.effective_from,
       p.prompt_picos, p.completion_picos, p.request_picos, p.image_picos, p.web_search_picos,
       p.reasoning_picos, p.cache_read_picos, p.cache_write_picos, p.cache_write_1h_picos,
       p.image_token_picos, p.image_output_picos, p.audio_picos, p.audio_output_picos,
       p.audio_cache_picos, p.tiers
FROM holds h
JOIN prices p ON p.id = h.price_id
WHERE h.id = ANY ($1::uuid[])
ORDER BY h.id
FOR NO KEY UPDATE OF h
