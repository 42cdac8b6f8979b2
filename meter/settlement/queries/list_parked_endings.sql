-- Parked endings whose account is free now, the oldest of each account first: at most $1 of an
-- account, and $2 in all. It finds the accounts by jumps over the index, because one account may
-- have very many.
WITH RECURSIVE owners AS (
    (SELECT account_id FROM parked_endings ORDER BY account_id LIMIT 1)
    UNION ALL
    SELECT (SELECT p.account_id FROM parked_endings p WHERE p.account_id > o.account_id
            ORDER BY p.account_id LIMIT 1)
    FROM owners o WHERE o.account_id IS NOT NULL
), free AS (
    SELECT a.id AS account_id FROM accounts a
    WHERE a.id IN (SELECT account_id FROM owners)
    ORDER BY a.id FOR NO KEY UPDATE SKIP LOCKED
), ready AS (
    SELECT account_id FROM free UNION ALL SELECT ''
)
SELECT p.id, p.observed
FROM ready r
CROSS JOIN LATERAL (
    -- A range instead of an equality: with that, the planner may read all accounts in order of id.
    SELECT e.id, e.observed FROM parked_endings e
    WHERE e.account_id >= r.account_id AND e.account_id <= r.account_id
    ORDER BY e.account_id, e.id LIMIT $1
) p
LIMIT $2
