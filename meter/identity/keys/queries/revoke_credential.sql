-- Ends a key whose account the caller has locked, for good. Holds are placed under the same lock,
-- so none that was judged before can be committed after this has answered.
UPDATE credentials SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL
