-- Revokes a pass for ever; a second call changes nothing. No row if the account has no such pass.
WITH ended AS (
    UPDATE passes SET revoked_at = clock_timestamp()
    WHERE id = $2 AND account_id = $1 AND revoked_at IS NULL
    RETURNING id
)
SELECT EXISTS (SELECT FROM ended) AS is_new FROM passes WHERE id = $2 AND account_id = $1
