-- Accounts that contradict the ledger: the sums of the youngest checkpoint, and of the batches after
-- $1, the last one it has. V1 and V2, as the queries over the whole books have them.
WITH tail AS (
    SELECT * FROM sums_of_batches($1, 9223372036854775807)
), booked AS (
    SELECT account_id, sum(customer) AS customer, sum(over) AS over
    FROM (SELECT account_id, customer, over FROM checkpoint_sums
          UNION ALL SELECT account_id, customer, over FROM tail) both_parts
    GROUP BY account_id
), set_aside AS (
    SELECT account_id, sum(amount_picos) AS amount FROM holds GROUP BY account_id
)
SELECT 'balances' AS invariant, coalesce(a.id, b.account_id) AS id
FROM accounts a FULL JOIN booked b ON b.account_id = a.id
WHERE a.balance_picos IS DISTINCT FROM coalesce(b.customer, 0)
UNION ALL
SELECT 'held', a.id FROM accounts a LEFT JOIN set_aside s ON s.account_id = a.id
WHERE a.held_picos <> coalesce(s.amount, 0)
UNION ALL
SELECT 'available', a.id FROM accounts a LEFT JOIN booked b ON b.account_id = a.id
WHERE a.balance_picos - a.held_picos + a.overdrawn_picos < 0
   OR a.overdrawn_picos > coalesce(b.over, 0)
UNION ALL
SELECT 'limits', id::text FROM holds
WHERE state = 'open' AND expires_at < clock_timestamp() - interval '1 minute'
UNION ALL
SELECT 'chain', 'head of chain ' || c.id
FROM (SELECT n.id::smallint AS id, l.position, l.hash
      FROM generate_series(1, 32) AS n (id) LEFT JOIN ledger_chains l ON l.id = n.id) c
LEFT JOIN LATERAL (
    SELECT coalesce(b.position, b.number) AS position, b.hash FROM ledger_batches b
    WHERE b.chain = c.id
      AND b.number > $1
    ORDER BY b.number DESC LIMIT 1
) young ON true
LEFT JOIN (SELECT positions, hashes FROM ledger_checkpoints ORDER BY number DESC LIMIT 1) k ON true
WHERE c.position IS DISTINCT FROM coalesce(young.position, k.positions[c.id], 0)
   OR c.hash IS DISTINCT FROM coalesce(young.hash, k.hashes[c.id], first_hash(c.id))
