-- V2: the held amount of an account is the sum of its live holds.
SELECT a.id
FROM accounts a
LEFT JOIN (SELECT account_id, sum(amount_picos) AS amount_picos FROM holds
           GROUP BY account_id) s ON s.account_id = a.id
WHERE a.held_picos <> coalesce(s.amount_picos, 0)
