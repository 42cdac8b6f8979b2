-- Adds a price of a provider, effective now, for every model whose price has changed; returns the
-- number added. A price that an administrator set stays in force.
WITH offered AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                         $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
                         $13::bigint[], $14::bigint[], $15::bigint[], $16::jsonb[], $17::text[])
        AS o (model_id, prompt_picos, completion_picos, request_picos, image_picos, web_search_picos,
              reasoning_picos, cache_read_picos, cache_write_picos, cache_write_1h_picos,
              image_token_picos, image_output_picos, audio_picos, audio_output_picos,
              audio_cache_picos, tiers, origin)
), in_force AS (
    SELECT DISTINCT ON (model_id) * FROM prices
    WHERE provider = $18 AND model_id IN (SELECT model_id FROM offered)
      AND effective_from <= clock_timestamp()
    ORDER BY model_id, effective_from DESC
), added AS (
    INSERT INTO prices (model_id, prompt_picos, completion_picos, request_picos, image_picos, web_search_picos,
                        reasoning_picos, cache_read_picos, cache_write_picos,
                        cache_write_1h_picos, image_token_picos, image_output_picos, audio_picos,
                        audio_output_picos, audio_cache_picos, tiers, origin, provider)
    SELECT o.*, $18 FROM offered o LEFT JOIN in_force f ON f.model_id = o.model_id
    WHERE (f.prompt_picos, f.completion_picos, f.request_picos, f.image_picos, f.web_search_picos,
           f.reasoning_picos, f.cache_read_picos, f.cache_write_picos, f.cache_write_1h_picos,
           f.image_token_picos, f.image_output_picos, f.audio_picos, f.audio_output_picos,
           f.audio_cache_picos, f.tiers)
        IS DISTINCT FROM (o.prompt_picos, o.completion_picos, o.request_picos, o.image_picos, o.web_search_picos,
                          o.reasoning_picos, o.cache_read_picos, o.cache_write_picos,
                          o.cache_write_1h_picos, o.image_token_picos, o.image_output_picos,
                          o.audio_picos, o.audio_output_picos, o.audio_cache_picos, o.tiers)
      AND f.origin IS DISTINCT FROM 'administrator'
    RETURNING 1
)
SELECT count(*) FROM added
