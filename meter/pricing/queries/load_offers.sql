-- The models that enabled providers besides openrouter offer, with each provider's price in force.
SELECT DISTINCT ON (o.provider, o.model_id)
       o.provider, o.upstream_name, o.context_length, o.max_completion_tokens,
       m.id, m.name, m.unasked_searches,
       p.id AS price_id, p.effective_from,
       p.prompt_picos, p.completion_picos, p.request_picos, p.image_picos, p.web_search_picos,
       p.reasoning_picos, p.cache_read_picos, p.cache_write_picos, p.cache_write_1h_picos,
       p.image_token_picos, p.image_output_picos, p.audio_picos, p.audio_output_picos,
       p.audio_cache_picos, p.tiers
FROM offers o
JOIN providers v ON v.id = o.provider AND v.state = 'enabled'
JOIN models m ON m.id = o.model_id
JOIN prices p ON p.provider = o.provider AND p.model_id = o.model_id
             AND p.effective_from <= clock_timestamp()
WHERE o.is_offered
ORDER BY o.provider, o.model_id, p.effective_from DESC
