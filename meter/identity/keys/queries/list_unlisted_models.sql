-- The ids among these that the catalogue does not list now.
SELECT asked.id FROM unnest($1::text[]) WITH ORDINALITY AS asked (id, position)
WHERE NOT EXISTS (SELECT FROM models m WHERE m.id = asked.id AND m.is_listed)
ORDER BY asked.position
