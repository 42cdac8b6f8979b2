-- Revokes a key for ever. The caller holds the lock of the account. Holds are placed under the same
-- lock, so no hold that was judged before is committed after this has returned.
UPDATE credentials SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL
