-- The principal of a name in a client certificate.
SELECT p.*, p.expires_at AS ends_at FROM live_principals p
WHERE p.kind = 'certificate' AND p.issuer_id IS NULL AND p.subject = $1
