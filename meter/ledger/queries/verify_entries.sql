-- V1, for the postings after $1, up to $2: their entries sum to zero, and every entry belongs to a
-- posting about the same account.
SELECT DISTINCT 'entries_belong' AS invariant, e.posting_id::text AS id
FROM entry_rows e LEFT JOIN posting_rows p ON p.id = e.posting_id AND p.booked_at = e.booked_at
WHERE e.posting_id > $1 AND e.posting_id <= $2 AND p.account_id IS DISTINCT FROM e.account_id
UNION ALL
SELECT 'postings_balance', posting_id::text
FROM entry_rows WHERE posting_id > $1 AND posting_id <= $2
GROUP BY posting_id HAVING sum(amount_picos) <> 0
