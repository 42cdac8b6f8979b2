-- For each provider that a route names: the models that it offers.
SELECT v.id,
       CASE WHEN v.id = 'openrouter'
            THEN (SELECT array_agg(m.id) FROM models m WHERE m.is_listed AND m.source = 'openrouter')
            ELSE (SELECT array_agg(o.model_id) FROM offers o WHERE o.provider = v.id AND o.is_offered)
       END AS model_ids
FROM providers v WHERE v.id = ANY ($1::text[])
