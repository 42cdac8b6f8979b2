-- Revokes an identity or certificate for ever; a second call changes nothing.
UPDATE credentials SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE id = $2 AND account_id = $1 AND kind IN ('identity', 'certificate')
RETURNING id
