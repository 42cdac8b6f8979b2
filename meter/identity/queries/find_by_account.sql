-- The principal that acts for an account which gave no credential itself.
SELECT p.*, p.expires_at AS ends_at FROM live_principals p
WHERE p.kind = 'issued' AND p.account_id = $1
