-- A plan of these that does not exist; no row where all do.
SELECT wanted.id FROM unnest($1::text[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM plans p WHERE p.id = wanted.id)
LIMIT 1
