-- The parts of the lots of an account that expired by $2 and that no hold may still use. It comes
-- after the lock of the account, so that it sees every hold that was placed before.
SELECT e.lot_id, e.expirable_picos, l.expired_picos, c.reason
FROM accounts a
CROSS JOIN LATERAL expirable_lots(a.id, a.next_expiry, least($2, clock_timestamp())) e
JOIN credit_lots l ON l.id = e.lot_id
JOIN credit_postings c ON c.posting_id = l.id
WHERE a.id = $1
ORDER BY l.expires_at, l.id
