-- Stores the time of a newer JWT; no row where one as new was seen of any identity of the account,
-- because the plan belongs to the account. The caller has locked the account.
UPDATE credentials c SET token_issued_at = $2
WHERE c.id = $1 AND NOT EXISTS (
    SELECT FROM credentials o
    WHERE o.account_id = c.account_id AND o.kind = 'identity' AND o.token_issued_at >= $2)
RETURNING c.account_id
