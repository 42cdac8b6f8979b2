-- One limit rule.
SELECT id, applies_to, applies_id, counted_per, model_pattern, requests_per_minute,
       tokens_per_minute, is_shadow
FROM limit_rules WHERE id = $1
