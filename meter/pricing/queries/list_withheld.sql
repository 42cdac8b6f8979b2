-- The models that are listed and not offered, with the reason.
SELECT provider, model_id, reason, first_seen_at FROM withheld_models ORDER BY provider, model_id
