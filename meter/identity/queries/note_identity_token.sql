-- Remembers that a younger JWT of an identity was seen, unless one as young was: of any identity of
-- the account, because the plan is the account's. The caller has the account locked.
UPDATE credentials c SET token_issued_at = $2
WHERE c.id = $1 AND NOT EXISTS (
    SELECT FROM credentials o
    WHERE o.account_id = c.account_id AND o.kind = 'identity' AND o.token_issued_at >= $2)
RETURNING c.account_id
