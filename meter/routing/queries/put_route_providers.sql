-- Makes the providers of a route these.
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::integer[], $4::integer[])
        AS g (provider, priority, weight)
), gone AS (
    DELETE FROM route_providers
    WHERE route_id = $1 AND provider NOT IN (SELECT provider FROM given)
)
INSERT INTO route_providers (route_id, provider, priority, weight)
SELECT $1, provider, priority, weight FROM given
ON CONFLICT (route_id, provider) DO UPDATE SET
    priority = excluded.priority, weight = excluded.weight
