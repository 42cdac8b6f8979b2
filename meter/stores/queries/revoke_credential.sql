-- Ends a credential of this account for good; the first time counts.
UPDATE credentials SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE id = $2 AND account_id = $1
RETURNING id
