-- Stores the time of the last sync of a catalogue that worked.
INSERT INTO catalogue_syncs (provider, synced_at, models) VALUES ($1, clock_timestamp(), $2)
ON CONFLICT (provider) DO UPDATE SET
    synced_at = excluded.synced_at, models = excluded.models, failed_at = NULL, failure = NULL
