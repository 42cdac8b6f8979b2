-- Adds prices that an administrator set, and the models that nobody listed yet; those are not listed
-- before the provider's next listing has them.
WITH listed AS (
    SELECT * FROM unnest($2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::bigint[], $8::bigint[], $9::bigint[])
        AS l (model_id, effective_from, prompt_picos, completion_picos, request_picos,
              reasoning_picos, cache_read_picos, cache_write_picos)
), known AS (
    INSERT INTO models (id, name, context_length, max_completion_tokens, listing, is_listed, source)
    SELECT DISTINCT model_id, model_id, $10::bigint, $10::bigint, '{}'::jsonb, false, $1
    FROM listed
    ON CONFLICT (id) DO NOTHING
)
INSERT INTO prices (provider, origin, model_id, effective_from, prompt_picos, completion_picos,
                    request_picos, image_picos, web_search_picos, reasoning_picos,
                    cache_read_picos, cache_write_picos)
SELECT $1, 'administrator', model_id, coalesce(effective_from, clock_timestamp()), prompt_picos,
       completion_picos, request_picos, 0, 0, reasoning_picos, cache_read_picos, cache_write_picos
FROM listed
