-- One limit rule.
SELECT id, applies_to, applies_id, counted_per, model_pattern, requests_per_minute,
       tokens_per_minute, is_shadow, requests_per_day, requests_per_month
FROM limit_rules WHERE id = $1
