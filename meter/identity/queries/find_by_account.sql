-- The principal for requests of an account without a credential of its own.
SELECT p.*, p.expires_at AS ends_at FROM live_principals p
WHERE p.kind = 'issued' AND p.account_id = $1
