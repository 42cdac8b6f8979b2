-- V8: the balance of an account is what is left of its lots and credit that never expires, which is
-- below zero only where no lot has anything left; and its mark is the earliest expiry of these.
SELECT 'lots' AS invariant, a.id
FROM accounts a
LEFT JOIN (SELECT account_id, sum(remaining_picos) AS left_picos,
                  min(expires_at) FILTER (WHERE remaining_picos > 0) AS mark
           FROM credit_lots GROUP BY account_id) l ON l.account_id = a.id
WHERE l.left_picos > greatest(0, a.balance_picos) OR a.next_expiry IS DISTINCT FROM l.mark
UNION ALL
-- A lot is of the credit that its posting gave, and expired by as much as its postings say.
SELECT 'lots', l.id::text
FROM credit_lots l
LEFT JOIN credit_postings c ON c.posting_id = l.id
LEFT JOIN (SELECT lot_id, sum(amount_picos) AS amount_picos FROM lot_expiries GROUP BY lot_id) e
    ON e.lot_id = l.id
WHERE c.amount_picos IS DISTINCT FROM l.amount_picos
   OR l.expired_picos <> coalesce(e.amount_picos, 0)
UNION ALL
SELECT 'lots', coalesce(e.posting_id, c.posting_id)::text
FROM lot_expiries e
FULL JOIN (SELECT posting_id, amount_picos FROM credit_postings WHERE template = 'expiry') c
    ON c.posting_id = e.posting_id
WHERE e.amount_picos IS DISTINCT FROM -c.amount_picos
