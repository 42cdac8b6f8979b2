-- Stores the latest use of each credential; an older time changes nothing.
INSERT INTO credential_uses AS u (credential_id, last_used_at)
SELECT * FROM unnest($1::text[], $2::timestamptz[])
ON CONFLICT (credential_id) DO UPDATE SET last_used_at = excluded.last_used_at
WHERE u.last_used_at < excluded.last_used_at
