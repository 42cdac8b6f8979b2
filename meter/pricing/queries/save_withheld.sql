-- Makes the models that are withheld those of this listing; a reason that stays keeps its instant.
WITH withheld AS (
    SELECT * FROM unnest($2::text[], $3::text[]) AS w (model_id, reason)
), gone AS (
    DELETE FROM withheld_models
    WHERE provider = $1 AND model_id NOT IN (SELECT model_id FROM withheld)
)
INSERT INTO withheld_models AS w (provider, model_id, reason)
SELECT $1, model_id, reason FROM withheld
ON CONFLICT (provider, model_id) DO UPDATE SET
    reason = excluded.reason, first_seen_at = clock_timestamp()
WHERE w.reason <> excluded.reason
