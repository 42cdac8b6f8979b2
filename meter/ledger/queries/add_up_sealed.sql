-- The sums of dropped months, by account, as those of a chunk.
SELECT account_id, sum(customer) AS customer, sum(charged) AS charged, sum(credited) AS credited,
       sum(cost) AS cost, sum(over) AS over, sum(used_charge) AS used_charge,
       sum(used_cost) AS used_cost, sum(revenue) AS revenue, sum(excess) AS excess,
       0 AS postings, sum(entries) AS entries, 0 AS requests
FROM (
    SELECT account_id,
           CASE WHEN ledger_account = 'customer' THEN amount_picos ELSE 0 END AS customer,
           CASE WHEN ledger_account = 'customer' AND is_request THEN -amount_picos ELSE 0 END
               AS charged,
           CASE WHEN ledger_account = 'customer' AND NOT is_request THEN amount_picos ELSE 0 END
               AS credited,
           CASE WHEN ledger_account = 'provider' THEN amount_picos ELSE 0 END AS cost,
           CASE WHEN ledger_account = 'customer'
                     AND template IN ('excess', 'correction', 'payment_reversal')
                THEN taken_picos ELSE 0 END AS over,
           0 AS used_charge, 0 AS used_cost,
           CASE WHEN ledger_account = 'revenue' THEN amount_picos ELSE 0 END AS revenue,
           CASE WHEN ledger_account = 'customer' AND template = 'excess'
                THEN -amount_picos ELSE 0 END AS excess,
           entries
    FROM (SELECT *, template IN ('settlement', 'excess', 'reversal', 'correction') AS is_request
          FROM sealed_entries) sealed
    UNION ALL
    SELECT account_id, 0, 0, 0, 0, 0, charge_picos, provider_cost_picos, 0, 0, 0 FROM sealed_usage
) moved
GROUP BY account_id
