-- A posting of an administrator, with the balance of its account right after it, and the instant at
-- which its credit expires.
SELECT c.booked_at, c.template, c.reason, c.amount_picos, c.balance_after_picos, l.expires_at
FROM credit_postings c LEFT JOIN credit_lots l ON l.id = c.posting_id WHERE c.posting_id = $1
