-- Deletes a provider with its offers, system key and sync; prices and usage stay.
WITH gone AS (
    DELETE FROM provider_keys WHERE provider = $1
), synced AS (
    DELETE FROM catalogue_syncs WHERE provider = $1
), withheld AS (
    DELETE FROM withheld_models WHERE provider = $1
), doubted AS (
    DELETE FROM catalogue_doubts WHERE provider = $1
)
DELETE FROM providers WHERE id = $1
