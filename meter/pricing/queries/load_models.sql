-- Every listed model with the price in force at the provider whose listing defines it.
SELECT DISTINCT ON (m.id)
       m.id, m.name, m.context_length, m.max_completion_tokens, m.listing, m.unasked_searches,
       p.id AS price_id, p.effective_from, p.provider,
       p.prompt_picos, p.completion_picos, p.request_picos, p.image_picos, p.web_search_picos,
       p.reasoning_picos, p.cache_read_picos, p.cache_write_picos, p.cache_write_1h_picos,
       p.image_token_picos, p.image_output_picos, p.audio_picos, p.audio_output_picos,
       p.audio_cache_picos, p.tiers
FROM models m
JOIN prices p ON p.provider = m.source AND p.model_id = m.id
             AND p.effective_from <= clock_timestamp()
WHERE m.is_listed
ORDER BY m.id, p.effective_from DESC
