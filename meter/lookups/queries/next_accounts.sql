-- Walks the accounts with look-ups after $1, in order, until $2 of them have one that is due, over at
-- most $3 accounts. Each step reads one row of the index, however many look-ups an account has: the
-- first row of an account is the one that is due first.
WITH RECURSIVE walk AS (
    (SELECT l.account_id, l.due_at <= statement_timestamp() AS is_due,
            (l.due_at <= statement_timestamp())::integer AS due, 1 AS steps
     FROM lookups l WHERE l.account_id > $1
     ORDER BY l.account_id, l.due_at LIMIT 1)
    UNION ALL
    SELECT n.account_id, n.is_due, w.due + n.is_due::integer, w.steps + 1
    FROM walk w CROSS JOIN LATERAL (
        SELECT l.account_id, l.due_at <= statement_timestamp() AS is_due
        FROM lookups l WHERE l.account_id > w.account_id
        ORDER BY l.account_id, l.due_at LIMIT 1
    ) n
    WHERE w.due < $2 AND w.steps < $3
)
SELECT account_id, is_due FROM walk
