-- Stores why a catalogue cannot be synced, and since when.
INSERT INTO catalogue_syncs AS s (provider, failed_at, failure) VALUES ($1, clock_timestamp(), $2)
ON CONFLICT (provider) DO UPDATE SET
    failed_at = coalesce(s.failed_at, excluded.failed_at), failure = excluded.failure
