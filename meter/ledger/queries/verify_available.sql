-- V2: the available amount is below zero only by charges beyond a hold (excess, and corrections
-- upwards) and by reversed payments.
SELECT a.id
FROM accounts a
LEFT JOIN (SELECT account_id, -sum(amount_picos) AS amount_picos
           FROM (SELECT e.account_id, e.amount_picos
                 FROM postings p
                 JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at
                 WHERE p.template IN ('excess', 'correction', 'payment_reversal')
                   AND e.ledger_account = 'customer'
                   AND e.amount_picos < 0
                 UNION ALL
                 SELECT account_id, -taken_picos FROM sealed_entries
                 WHERE template IN ('excess', 'correction', 'payment_reversal')
                   AND ledger_account = 'customer') over
           GROUP BY account_id) s ON s.account_id = a.id
WHERE a.balance_picos - a.held_picos + a.overdrawn_picos < 0
   OR a.overdrawn_picos > coalesce(s.amount_picos, 0)
