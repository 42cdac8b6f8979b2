-- Ends a credential of this account for good; the first time counts. Holds are placed under the
-- account's lock, so none that was judged before can be committed after this has answered.
WITH account AS MATERIALIZED (
    SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE
)
UPDATE credentials c SET revoked_at = coalesce(c.revoked_at, clock_timestamp())
FROM account
WHERE c.id = $2 AND c.account_id = account.id
RETURNING c.id
