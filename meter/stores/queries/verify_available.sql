-- V2: nothing is available below zero but what excess postings explain.
SELECT a.id
FROM accounts a
LEFT JOIN (SELECT e.account_id, -sum(e.amount_picos) AS amount_picos
           FROM postings p JOIN entries e ON e.posting_id = p.id
           WHERE p.template = 'excess' AND e.ledger_account = 'customer'
           GROUP BY e.account_id) s ON s.account_id = a.id
WHERE a.balance_picos - a.held_picos + a.overdrawn_picos < 0
   OR a.overdrawn_picos > coalesce(s.amount_picos, 0)
