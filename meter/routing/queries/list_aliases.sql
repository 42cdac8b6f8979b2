-- All names that administrators gave to models.
SELECT name, model_id, is_redirect FROM model_aliases ORDER BY name
