-- The sums of the batches after $1, up to $2, by account, and how many rows they are. `requests` are the
-- settlements whose usage is kept; usage that was dropped is in `sealed_usage`.
SELECT account_id, sum(customer) AS customer, sum(charged) AS charged, sum(credited) AS credited,
       sum(cost) AS cost, sum(over) AS over, sum(used_charge) AS used_charge,
       sum(used_cost) AS used_cost, sum(revenue) AS revenue, sum(excess) AS excess,
       sum(postings) AS postings, sum(entries) AS entries, sum(requests) AS requests
FROM (
    SELECT account_id, customer_picos AS customer, -customer_picos AS charged, 0 AS credited,
           provider_picos AS cost, 0 AS over, -customer_picos AS used_charge,
           provider_picos AS used_cost, revenue_picos AS revenue, 0 AS excess, 1 AS postings,
           2 + (revenue_picos <> 0)::int AS entries, 1 AS requests
    FROM settlements WHERE batch > $1 AND batch <= $2
    UNION ALL
    SELECT account_id, customer_picos, -customer_picos, 0, provider_picos, 0, 0, 0, revenue_picos, 0,
           1, 2 + (revenue_picos <> 0)::int, 0
    FROM kept_settlements WHERE batch > $1 AND batch <= $2
    UNION ALL
    SELECT account_id, 0, 0, 0, 0, 0, charge_picos, provider_cost_picos, 0, 0, 0, 0, 0
    FROM usage_rows WHERE batch > $1 AND batch <= $2
    UNION ALL
    SELECT account_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0
    FROM posting_rows WHERE batch > $1 AND batch <= $2
    UNION ALL
    SELECT e.account_id,
           CASE WHEN e.ledger_account = 'customer' THEN e.amount_picos ELSE 0 END,
           CASE WHEN e.ledger_account = 'customer' AND p.hold_id IS NOT NULL
                THEN -e.amount_picos ELSE 0 END,
           CASE WHEN e.ledger_account = 'customer' AND p.hold_id IS NULL
                     AND c.posting_id IS NOT NULL THEN e.amount_picos ELSE 0 END,
           CASE WHEN e.ledger_account = 'provider' THEN e.amount_picos ELSE 0 END,
           CASE WHEN p.template IN ('excess', 'correction', 'payment_reversal')
                     AND e.ledger_account = 'customer'
                THEN greatest(0, -e.amount_picos) ELSE 0 END,
           0, 0,
           CASE WHEN e.ledger_account = 'revenue' THEN e.amount_picos ELSE 0 END,
           CASE WHEN p.template = 'excess' AND e.ledger_account = 'customer'
                THEN -e.amount_picos ELSE 0 END,
           0, 1, 0
    FROM posting_rows p
    JOIN entry_rows e ON e.posting_id = p.id AND e.booked_at = p.booked_at
    LEFT JOIN credit_postings c ON c.posting_id = p.id AND c.booked_at = p.booked_at
    WHERE p.batch > $1 AND p.batch <= $2
) moved
GROUP BY account_id
