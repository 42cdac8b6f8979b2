-- All limit rules.
SELECT id, applies_to, applies_id, counted_per, model_pattern, requests_per_minute,
       tokens_per_minute, is_shadow
FROM limit_rules ORDER BY id
