-- For each hold the price of a provider for a model that was in force at an instant.
SELECT a.hold_id, p.*
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
    AS a (hold_id, provider, model_id, at)
CROSS JOIN LATERAL (
    SELECT * FROM prices p
    WHERE p.provider = a.provider AND p.model_id = a.model_id AND p.effective_from <= a.at
    ORDER BY p.effective_from DESC LIMIT 1
) p
