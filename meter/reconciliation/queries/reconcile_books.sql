-- Compares the books account by account, dropped months included: usage with ledger (charges and
-- costs), live holds with held amounts, the ledger with balances, and credit less usage with
-- balances.
WITH moved AS (
    SELECT account_id,
           sum(amount_picos) FILTER (WHERE ledger_account = 'customer') AS customer,
           -sum(amount_picos) FILTER (WHERE ledger_account = 'customer' AND NOT is_credit) AS charged,
           sum(amount_picos) FILTER (WHERE ledger_account = 'customer' AND is_credit AND is_registered)
               AS credited,
           sum(amount_picos) FILTER (WHERE ledger_account = 'provider') AS cost
    FROM (
        SELECT e.account_id, e.ledger_account, e.amount_picos, p.hold_id IS NULL AS is_credit,
               c.posting_id IS NOT NULL AS is_registered
        FROM entries e
        JOIN postings p ON p.id = e.posting_id AND p.booked_at = e.booked_at
        LEFT JOIN credit_postings c ON c.posting_id = p.id AND c.booked_at = p.booked_at
        UNION ALL
        SELECT account_id, ledger_account, amount_picos,
               template NOT IN ('settlement', 'excess', 'reversal', 'correction'), true
        FROM sealed_entries
    ) entry
    GROUP BY account_id
), used AS (
    SELECT account_id, sum(charge_picos) AS charge, sum(provider_cost_picos) AS cost
    FROM (SELECT account_id, charge_picos, provider_cost_picos FROM usage_records
          UNION ALL
          SELECT account_id, charge_picos, provider_cost_picos FROM sealed_usage) usage
    GROUP BY account_id
), set_aside AS (
    SELECT account_id, sum(amount_picos) AS amount FROM holds GROUP BY account_id
), known AS (
    SELECT id AS account_id FROM accounts UNION SELECT account_id FROM moved
    UNION SELECT account_id FROM used UNION SELECT account_id FROM set_aside
)
SELECT book.name AS book, sum(book.expected) AS expected_picos, sum(book.found) AS found_picos,
       sum(abs(book.expected - book.found)) AS drift_picos,
       count(*) FILTER (WHERE book.expected <> book.found) AS differing
FROM known
LEFT JOIN accounts a ON a.id = known.account_id
LEFT JOIN moved m ON m.account_id = known.account_id
LEFT JOIN used u ON u.account_id = known.account_id
LEFT JOIN set_aside h ON h.account_id = known.account_id
CROSS JOIN LATERAL (VALUES
    (1, 'charges', coalesce(u.charge, 0), coalesce(m.charged, 0)),
    (2, 'costs', coalesce(u.cost, 0), coalesce(m.cost, 0)),
    (3, 'holds', coalesce(h.amount, 0), coalesce(a.held_picos, 0)),
    (4, 'balances', coalesce(m.customer, 0), coalesce(a.balance_picos, 0)),
    (5, 'credits', coalesce(m.credited, 0) - coalesce(u.charge, 0), coalesce(a.balance_picos, 0))
) AS book (position, name, expected, found)
GROUP BY book.position, book.name
ORDER BY book.position
