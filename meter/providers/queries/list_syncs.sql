-- The last sync of each catalogue, and since when and why it fails.
SELECT provider, synced_at, models, failed_at, failure FROM catalogue_syncs
