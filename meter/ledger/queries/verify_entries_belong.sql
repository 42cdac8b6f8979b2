-- V1: every entry belongs to a posting about the same account.
SELECT DISTINCT e.posting_id::text AS id
FROM entries e LEFT JOIN postings p ON p.id = e.posting_id AND p.booked_at = e.booked_at
WHERE p.account_id IS DISTINCT FROM e.account_id
