-- Compares the books account by account, dropped months included: usage with ledger (charges and
-- costs), live holds with held amounts, the ledger with balances, and credit less usage with
-- balances. With NULL all rows are read; otherwise $1 is the last batch of the youngest checkpoint,
-- whose sums are taken instead of the rows up to there.
WITH moved AS (
    SELECT account_id, sum(customer) AS customer, sum(charged) AS charged,
           sum(credited) AS credited, sum(cost) AS cost, sum(used_charge) AS used_charge,
           sum(used_cost) AS used_cost
    FROM (SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM sums_of_books(9223372036854775807) WHERE $1::bigint IS NULL
          UNION ALL
          SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM checkpoint_sums WHERE $1::bigint IS NOT NULL
          UNION ALL
          SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM sums_of_batches($1::bigint, 9223372036854775807)
          WHERE $1::bigint IS NOT NULL) parts
    GROUP BY account_id
), set_aside AS (
    SELECT account_id, sum(amount_picos) AS amount FROM holds GROUP BY account_id
), known AS (
    SELECT id AS account_id FROM accounts UNION SELECT account_id FROM moved
    UNION SELECT account_id FROM set_aside
)
SELECT book.name AS book, sum(book.expected) AS expected_picos, sum(book.found) AS found_picos,
       sum(abs(book.expected - book.found)) AS drift_picos,
       count(*) FILTER (WHERE book.expected <> book.found) AS differing
FROM known
LEFT JOIN accounts a ON a.id = known.account_id
LEFT JOIN moved m ON m.account_id = known.account_id
LEFT JOIN set_aside h ON h.account_id = known.account_id
CROSS JOIN LATERAL (VALUES
    (1, 'charges', coalesce(m.used_charge, 0), coalesce(m.charged, 0)),
    (2, 'costs', coalesce(m.used_cost, 0), coalesce(m.cost, 0)),
    (3, 'holds', coalesce(h.amount, 0), coalesce(a.held_picos, 0)),
    (4, 'balances', coalesce(m.customer, 0), coalesce(a.balance_picos, 0)),
    (5, 'credits', coalesce(m.credited, 0) - coalesce(m.used_charge, 0),
     coalesce(a.balance_picos, 0))
) AS book (position, name, expected, found)
GROUP BY book.position, book.name
ORDER BY book.position
