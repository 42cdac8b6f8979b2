-- Creates or changes a limit rule; returns whether it is new.
INSERT INTO limit_rules (id, applies_to, applies_id, counted_per, model_pattern,
                         requests_per_minute, tokens_per_minute, is_shadow,
                         requests_per_day, requests_per_month)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (id) DO UPDATE SET
    applies_to = excluded.applies_to, applies_id = excluded.applies_id,
    counted_per = excluded.counted_per, model_pattern = excluded.model_pattern,
    requests_per_minute = excluded.requests_per_minute,
    tokens_per_minute = excluded.tokens_per_minute, is_shadow = excluded.is_shadow,
    requests_per_day = excluded.requests_per_day,
    requests_per_month = excluded.requests_per_month
RETURNING (xmax = 0) AS is_new
