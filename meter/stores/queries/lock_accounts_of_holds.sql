-- Locks the accounts of some holds, in the one order in which everybody locks accounts.
SELECT count(*) FROM (
    SELECT 1 FROM accounts a
    WHERE a.id IN (SELECT h.account_id FROM holds h WHERE h.id = ANY ($1::uuid[]))
    ORDER BY a.id FOR NO KEY UPDATE
) locked
