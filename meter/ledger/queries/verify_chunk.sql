-- Contradictions in the batches after $1, up to $2: V1 and V11. $3 and $4 are the positions and hashes
-- of the chains at $1. A batch whose rows were dropped with their month is checked by its links only.
WITH batches AS (
    SELECT b.*, coalesce(b.position, b.number) AS place FROM ledger_batches b
    WHERE b.number > $1 AND b.number <= $2
), ends AS (
    SELECT id, place, hash
    FROM unnest($3::bigint[], $4::bytea[]) WITH ORDINALITY AS e (place, hash, id)
), rows AS (
    SELECT p.id, p.batch, p.template, p.account_id, p.hold_id, p.booked_at, p.recorded_at, p.reason
    FROM posting_rows p WHERE p.batch > $1 AND p.batch <= $2
), parts AS (
    SELECT r.*, e.line, e.ledger_account, e.account_id AS entry_account_id, e.amount_picos
    FROM rows r LEFT JOIN entry_rows e ON e.posting_id = r.id AND e.booked_at = r.booked_at
), ordinary AS (
    SELECT s.id, s.batch, s.customer_picos, s.provider_picos, s.revenue_picos,
           settlement_record(s) AS record
    FROM settlements s WHERE s.batch > $1 AND s.batch <= $2
    UNION ALL
    SELECT s.id, s.batch, s.customer_picos, s.provider_picos, s.revenue_picos,
           settlement_record(ROW(s.*)::settlements)
    FROM kept_settlements s WHERE s.batch > $1 AND s.batch <= $2
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
WHERE l.number IS NULL OR l.place <> l.place_before + 1 OR l.previous_hash <> l.hash_before
   OR CASE WHEN l.postings = s.postings AND l.entries = s.entries
           THEN l.hash <> sha256(l.previous_hash || s.signed)
           ELSE l.number > (SELECT coalesce(max(last_batch), 0) FROM dropped_months
                            WHERE kind = 'ledger') END
UNION ALL
SELECT 'postings_balance', id::text FROM parts GROUP BY id HAVING sum(amount_picos) <> 0
UNION ALL
SELECT 'postings_balance', id::text FROM ordinary
WHERE customer_picos + provider_picos + revenue_picos <> 0
UNION ALL
SELECT DISTINCT 'entries_belong', id::text FROM parts
WHERE account_id IS DISTINCT FROM entry_account_id
