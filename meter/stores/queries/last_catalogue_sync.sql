-- When the catalogue was last brought up to date.
SELECT synced_at FROM catalogue_syncs WHERE provider = $1
