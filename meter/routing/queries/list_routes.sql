-- All routes, each with its providers in the order in which they are asked.
SELECT r.id, r.pattern, r.position,
       array_agg(p.provider ORDER BY p.priority, p.provider) AS providers,
       array_agg(p.priority ORDER BY p.priority, p.provider) AS priorities,
       array_agg(p.weight ORDER BY p.priority, p.provider) AS weights
FROM routes r JOIN route_providers p ON p.route_id = r.id
GROUP BY r.id ORDER BY r.position, r.id
