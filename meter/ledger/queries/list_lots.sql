-- The lots of an account that have something left, the earliest expiry first, and the sum over all.
SELECT l.id, l.amount_picos, l.remaining_picos, l.granted_at, l.expires_at, c.reason,
       sum(l.remaining_picos) OVER () AS expiring_picos
FROM accounts a
JOIN credit_lots l ON l.account_id = a.id AND l.expires_at >= a.next_expiry
JOIN credit_postings c ON c.posting_id = l.id
WHERE a.id = $1 AND l.remaining_picos > 0
ORDER BY l.expires_at, l.id LIMIT $2
