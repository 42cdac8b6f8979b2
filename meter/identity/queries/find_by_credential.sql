-- The principal of a live credential.
SELECT p.*, p.expires_at AS ends_at FROM live_principals p WHERE p.credential_id = $1
