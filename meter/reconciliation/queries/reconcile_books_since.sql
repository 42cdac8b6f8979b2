-- As reconcile_books, from the sums of the youngest checkpoint and the batches after $1, its last.
WITH known_sums AS (
    SELECT account_id, sum(customer) AS customer, sum(charged) AS charged,
           sum(credited) AS credited, sum(cost) AS cost, sum(used_charge) AS used_charge,
           sum(used_cost) AS used_cost
    FROM (SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM checkpoint_sums
          UNION ALL
          SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM sums_of_batches($1, 9223372036854775807)) both_parts
    GROUP BY account_id
), moved AS (
    SELECT account_id, customer, charged, credited, cost FROM known_sums
), used AS (
    SELECT account_id, used_charge AS charge, used_cost AS cost FROM known_sums
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
