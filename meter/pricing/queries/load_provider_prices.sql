-- The prices of a provider that are in force, whether or not their models are offered.
SELECT DISTINCT ON (p.model_id)
       p.model_id, p.id AS price_id, p.effective_from, p.provider, p.origin,
       p.prompt_picos, p.completion_picos, p.request_picos, p.image_picos, p.web_search_picos,
       p.reasoning_picos, p.cache_read_picos, p.cache_write_picos, p.cache_write_1h_picos,
       p.image_token_picos, p.image_output_picos, p.audio_picos, p.audio_output_picos,
       p.audio_cache_picos, p.tiers
FROM prices p
WHERE p.provider = $1 AND p.effective_from <= clock_timestamp()
ORDER BY p.model_id, p.effective_from DESC
