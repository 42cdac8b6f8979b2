-- Returns which of the ids are models that somebody offers.
SELECT w.id FROM unnest($1::text[]) AS w (id)
WHERE EXISTS (SELECT FROM models m JOIN providers v ON v.id = 'openrouter' AND v.state = 'enabled'
              WHERE m.id = w.id AND m.is_listed AND m.source = 'openrouter')
   OR EXISTS (SELECT FROM offers o JOIN providers v ON v.id = o.provider AND v.state = 'enabled'
              WHERE o.model_id = w.id AND o.is_offered)
