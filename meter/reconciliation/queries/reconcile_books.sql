-- Compares the books account by account, dropped months included: usage with ledger (charges and
-- costs), live holds with held amounts, the ledger with balances, and credit less usage with
-- balances. Sums stand for the rows up to batch $1: those of the youngest checkpoint, whose last one it
-- is, or those that are given from $2 on, the accounts first.
WITH moved AS (
    SELECT account_id, sum(customer) AS customer, sum(charged) AS charged,
           sum(credited) AS credited, sum(cost) AS cost, sum(used_charge) AS used_charge,
           sum(used_cost) AS used_cost
    FROM (SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM checkpoint_sums WHERE $2::text[] IS NULL
          UNION ALL
          SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM unnest($2::text[], $3::numeric[], $4::numeric[], $5::numeric[], $6::numeric[],
                      $7::numeric[], $8::numeric[], $9::numeric[])
              AS given (account_id, customer, charged, credited, cost, over, used_charge, used_cost)
          UNION ALL
          SELECT account_id, customer, charged, credited, cost, used_charge, used_cost
          FROM sums_of_batches($1, 9223372036854775807)) parts
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
