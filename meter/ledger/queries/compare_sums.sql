-- Accounts whose sums of all rows, given by account as customer and overdraft, are not those that
-- checkpoint $1 sealed. Nothing where a younger checkpoint is there.
SELECT 'balances' AS invariant, coalesce(c.account_id, f.account_id) AS id
FROM checkpoint_sums c
FULL JOIN unnest($2::text[], $3::numeric[], $4::numeric[]) AS f (account_id, customer, over)
    ON f.account_id = c.account_id
WHERE (SELECT max(number) FROM ledger_checkpoints) = $1
  AND (coalesce(c.customer, 0) <> coalesce(f.customer, 0)
       OR coalesce(c.over, 0) <> coalesce(f.over, 0))
