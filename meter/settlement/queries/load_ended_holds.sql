-- Ended holds with their recorded usage: sums over their usage records, and the newest record.
SELECT h.id, h.placed_at, h.account_id, h.credential_id, h.model_id, h.endpoint,
       coalesce(u.price_id, h.price_id) AS price_id,
       h.markup_bps, h.amount_picos, h.flat_cost_picos, h.max_tokens, h.state,
       h.pass_id, 0 AS counted_tokens, NULL::text[] AS token_buckets,
       NULL::text AS generation_id, true AS has_entry, p.model_id AS priced_model_id,
       p.effective_from, p.provider,
       p.prompt_picos, p.completion_picos, p.request_picos, p.image_picos, p.web_search_picos,
       p.reasoning_picos, p.cache_read_picos, p.cache_write_picos, p.cache_write_1h_picos,
       p.image_token_picos, p.image_output_picos, p.audio_picos, p.audio_output_picos,
       p.audio_cache_picos, p.tiers,
       u.last_revision, u.kind, u.source, u.prompt_tokens, u.completion_tokens, u.cached_tokens,
       u.cache_write_tokens, u.reasoning_tokens, u.cost_picos, u.charge_picos
FROM ended_holds h
CROSS JOIN LATERAL (
    SELECT max(r.revision) AS last_revision,
           -- Of the provider that answered, which may be another than the one of the hold's price.
           (array_agg(r.price_id ORDER BY r.revision DESC))[1] AS price_id,
           (array_agg(r.kind ORDER BY r.revision DESC))[1] AS kind,
           (array_agg(r.source ORDER BY r.revision DESC))[1] AS source,
           sum(r.prompt_tokens)::bigint AS prompt_tokens,
           sum(r.completion_tokens)::bigint AS completion_tokens,
           sum(r.cached_tokens)::bigint AS cached_tokens,
           sum(r.cache_write_tokens)::bigint AS cache_write_tokens,
           sum(r.reasoning_tokens)::bigint AS reasoning_tokens,
           -- Under an own key the house owes nothing.
           sum(coalesce(r.own_key_cost_picos, r.provider_cost_picos))::bigint AS cost_picos,
           sum(r.charge_picos)::bigint AS charge_picos
    FROM usage_records r WHERE r.hold_id = h.id AND r.placed_at = h.placed_at
) u
JOIN prices p ON p.id = coalesce(u.price_id, h.price_id)
WHERE h.id = ANY ($1::uuid[])
