-- Deletes secrets of a key: those that would expire later, or all of them.
DELETE FROM credential_secrets WHERE credential_id = $1 AND (ends_at IS NOT NULL OR $2)
