-- Contradictions in the batches after $1, up to $2: V1, V3 and V11, as the queries over the whole
-- books have them. Chains continue where the youngest checkpoint has their heads.
WITH batches AS (
    SELECT b.*, coalesce(b.position, b.number) AS place FROM ledger_batches b
    WHERE b.number > $1 AND b.number <= $2
), ends AS (
    SELECT c.id, coalesce(k.positions[c.id], 0) AS place,
           coalesce(k.hashes[c.id], first_hash(c.id::smallint)) AS hash
    FROM generate_series(1, 32) AS c (id)
    LEFT JOIN (SELECT positions, hashes FROM ledger_checkpoints ORDER BY number DESC LIMIT 1) k
        ON true
), rows AS (
    SELECT p.id, p.batch, p.template, p.account_id, p.hold_id, p.booked_at, p.recorded_at, p.reason
    FROM posting_rows p WHERE p.batch > $1 AND p.batch <= $2
), parts AS (
    SELECT r.*, e.line, e.ledger_account, e.account_id AS entry_account_id, e.amount_picos
    FROM rows r LEFT JOIN entry_rows e ON e.posting_id = r.id AND e.booked_at = r.booked_at
), ordinary AS (
    SELECT s.*, settlement_record(s) AS record FROM settlements s
    WHERE s.batch > $1 AND s.batch <= $2
    UNION ALL
    SELECT s.*, settlement_record(ROW(s.*)::settlements) FROM kept_settlements s
    WHERE s.batch > $1 AND s.batch <= $2
), used AS (
    SELECT * FROM usage_rows WHERE batch > $1 AND batch <= $2
), signed AS (
    SELECT batch, sum(postings) AS postings, sum(entries) AS entries,
           string_agg(signed, ''::bytea ORDER BY place) AS signed
    FROM (SELECT batch, 1 AS place, count(*) AS postings,
                 count(*) * 2 + count(*) FILTER (WHERE revenue_picos <> 0) AS entries,
                 string_agg(record, ''::bytea ORDER BY id) AS signed
          FROM ordinary GROUP BY batch
          UNION ALL
          SELECT batch, 2, count(DISTINCT id), count(line),
                 convert_to(string_agg(
                     ledger_line(id, booked_at, template, account_id, hold_id, recorded_at, reason,
                                 line, ledger_account, entry_account_id, amount_picos),
                     '' ORDER BY id, line), 'UTF8')
          FROM parts GROUP BY batch) either
    GROUP BY batch
), linked AS (
    SELECT b.*, coalesce(lag(b.place) OVER places, e.place) AS place_before,
           coalesce(lag(b.hash) OVER places, e.hash) AS hash_before
    FROM batches b JOIN ends e ON e.id = b.chain
    WINDOW places AS (PARTITION BY b.chain ORDER BY b.number)
)
SELECT 'chain' AS invariant, coalesce(l.number, s.batch)::text AS id
FROM linked l FULL JOIN signed s ON s.batch = l.number
WHERE l.number IS NULL OR s.batch IS NULL OR l.place <> l.place_before + 1
   OR l.previous_hash <> l.hash_before OR l.postings <> s.postings OR l.entries <> s.entries
   OR l.hash <> sha256(l.previous_hash || s.signed)
UNION ALL
SELECT 'postings_balance', id::text FROM parts GROUP BY id HAVING sum(amount_picos) <> 0
UNION ALL
SELECT 'postings_balance', id::text FROM ordinary
WHERE customer_picos + provider_picos + revenue_picos <> 0
UNION ALL
SELECT DISTINCT 'entries_belong', id::text FROM parts
WHERE account_id IS DISTINCT FROM entry_account_id
UNION ALL
SELECT 'one_settlement', coalesce(hold_id, min(id::text)::uuid)::text FROM rows
WHERE template IN ('settlement', 'excess')
GROUP BY hold_id, template HAVING count(*) > 1 OR hold_id IS NULL
UNION ALL
SELECT 'one_settlement', r.hold_id::text FROM rows r
WHERE r.template = 'settlement' AND (
    r.id <> r.hold_id
    OR EXISTS (SELECT FROM settlements s WHERE s.id = r.hold_id AND s.placed_at = r.booked_at))
UNION ALL
SELECT 'charges', coalesce(u.hold_id, p.hold_id)::text
FROM (SELECT hold_id, batch, min(account_id) AS account_id, sum(charge_picos) AS charge,
             sum(provider_cost_picos) AS cost
      FROM used GROUP BY hold_id, batch) u
FULL JOIN (
    SELECT hold_id, batch, min(account_id) AS account_id,
           coalesce(-sum(amount_picos) FILTER (WHERE ledger_account = 'customer'), 0) AS charge,
           coalesce(sum(amount_picos) FILTER (WHERE ledger_account = 'provider'), 0) AS cost
    FROM parts WHERE hold_id IS NOT NULL GROUP BY hold_id, batch
) p ON p.hold_id = u.hold_id AND p.batch = u.batch
WHERE u.charge IS DISTINCT FROM p.charge OR u.cost IS DISTINCT FROM p.cost
   OR u.account_id IS DISTINCT FROM p.account_id
UNION ALL
SELECT 'endings', o.id::text FROM ordinary o
WHERE EXISTS (SELECT FROM holds h WHERE h.id = o.id)
   OR EXISTS (SELECT FROM ended_hold_rows h WHERE h.id = o.id AND h.placed_at = o.placed_at)
UNION ALL
SELECT 'endings', u.hold_id::text
FROM used u
LEFT JOIN ended_hold_rows h
    ON h.id = u.hold_id AND h.placed_at = u.placed_at AND h.account_id = u.account_id
WHERE u.kind <> 'correction' AND (h.id IS NULL OR (h.state = 'settled') = (u.kind = 'late'))
