-- For each model the price of a provider that is in force at an instant, null being now; with now.
SELECT l.place::integer AS place, clock_timestamp() AS now, p.id IS NOT NULL AS is_known,
       p.effective_from, p.origin, p.prompt_picos, p.completion_picos, p.request_picos,
       p.image_picos, p.web_search_picos, p.reasoning_picos, p.cache_read_picos, p.cache_write_picos
FROM unnest($2::text[], $3::timestamptz[]) WITH ORDINALITY AS l (model_id, at, place)
LEFT JOIN LATERAL (
    SELECT * FROM prices p
    WHERE p.provider = $1 AND p.model_id = l.model_id
      AND p.effective_from <= coalesce(l.at, clock_timestamp())
    ORDER BY p.effective_from DESC LIMIT 1
) p ON true
ORDER BY l.place
