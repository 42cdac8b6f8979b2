-- V1: an account's balance is the sum of its customer entries, those of dropped months included.
SELECT coalesce(a.id, s.account_id) AS id
FROM accounts a
FULL JOIN (SELECT account_id, sum(amount_picos) AS amount_picos
           FROM (SELECT account_id, amount_picos FROM entries WHERE ledger_account = 'customer'
                 UNION ALL
                 SELECT account_id, amount_picos FROM sealed_entries
                 WHERE ledger_account = 'customer') moved
           GROUP BY account_id) s ON s.account_id = a.id
WHERE a.balance_picos IS DISTINCT FROM coalesce(s.amount_picos, 0)
