-- V11: every batch of the ledger has the rows that it signed, and signed the batch before it in its
-- chain; each chain ends where its head says. A batch whose rows were dropped with their month is
-- checked by its links only; the number of entries missing in all equals the number that were
-- sealed.
WITH posted AS (
    SELECT p.batch, count(DISTINCT p.id) AS postings, count(e.line) AS entries,
           convert_to(string_agg(
               ledger_line(p.id, p.booked_at, p.template, p.account_id, p.hold_id, p.recorded_at,
                           p.reason, e.line, e.ledger_account, e.account_id, e.amount_picos),
               '' ORDER BY p.id, e.line), 'UTF8') AS signed
    FROM posting_rows p
    LEFT JOIN entry_rows e ON e.posting_id = p.id AND e.booked_at = p.booked_at
    GROUP BY p.batch
), settled AS (
    SELECT batch, count(*) AS postings,
           sum((customer_picos <> 0)::int + (provider_picos <> 0)::int + (revenue_picos <> 0)::int)
               AS entries,
           string_agg(record, ''::bytea ORDER BY id) AS signed
    FROM (SELECT s.batch, s.id, s.customer_picos, s.provider_picos, s.revenue_picos,
                 settlement_record(s) AS record
          FROM settlements s
          UNION ALL
          SELECT s.batch, s.id, s.customer_picos, s.provider_picos, s.revenue_picos,
                 settlement_record(ROW(s.*)::settlements)
          FROM kept_settlements s) rows
    GROUP BY batch
), signed AS (
    SELECT coalesce(s.batch, p.batch) AS batch,
           coalesce(s.postings, 0) + coalesce(p.postings, 0) AS postings,
           coalesce(s.entries, 0) + coalesce(p.entries, 0) AS entries,
           coalesce(s.signed, '') || coalesce(p.signed, '') AS signed
    FROM settled s FULL JOIN posted p ON p.batch = s.batch
), batches AS (
    SELECT b.*, coalesce(b.position, b.number) AS place FROM ledger_batches b
), linked AS (
    SELECT b.*, lag(b.place, 1, 0::bigint) OVER places AS place_before,
           lag(b.number, 1, 0::bigint) OVER places AS number_before,
           lag(b.hash, 1, first_hash(b.chain)) OVER places AS hash_before
    FROM batches b WINDOW places AS (PARTITION BY b.chain ORDER BY b.place)
)
SELECT coalesce(l.number, s.batch)::text AS id
FROM linked l FULL JOIN signed s ON s.batch = l.number
WHERE l.number IS NULL
   OR l.place <> l.place_before + 1
   OR l.number <= l.number_before
   OR l.previous_hash <> l.hash_before
   OR CASE WHEN l.postings = s.postings AND l.entries = s.entries
           THEN l.hash <> sha256(l.previous_hash || s.signed)
           ELSE l.number > (SELECT coalesce(max(last_batch), 0) FROM dropped_months
                            WHERE kind = 'ledger') END
UNION ALL
SELECT 'entries'
WHERE (SELECT coalesce(sum(entries), 0) FROM ledger_batches)
   <> (SELECT count(*) FROM entries) + (SELECT coalesce(sum(entries), 0) FROM sealed_entries)
UNION ALL
SELECT 'head of chain ' || chains.id
FROM generate_series(1, 32) AS chains (id)
LEFT JOIN ledger_chains c ON c.id = chains.id
LEFT JOIN LATERAL (
    SELECT max(b.place) AS place, (array_agg(b.hash ORDER BY b.place DESC))[1] AS hash
    FROM batches b WHERE b.chain = chains.id
) youngest ON true
WHERE c.position IS DISTINCT FROM coalesce(youngest.place, 0)
   OR c.hash IS DISTINCT FROM coalesce(youngest.hash, first_hash(chains.id::smallint))
UNION ALL
SELECT 'checkpoint ' || k.number
FROM (SELECT c.*, lag(number, 1, 0::bigint) OVER numbers AS number_before,
             lag(hash, 1, sha256('tollkeeper checkpoints')) OVER numbers AS hash_before
      FROM ledger_checkpoints c WINDOW numbers AS (ORDER BY number)) k
WHERE k.number <> k.number_before + 1
   OR k.previous_hash <> k.hash_before
   OR k.hash <> sha256(k.previous_hash || record_send(
       ROW(k.last_batch, k.positions, k.hashes, k.sums_hash)))
   OR (k.sums_hash <> checkpoint_sums_hash()
       AND k.number = (SELECT max(number) FROM ledger_checkpoints))
UNION ALL
-- Checkpoints anchor the chains: what they saw as heads is still there.
SELECT DISTINCT 'checkpoint ' || k.number
FROM ledger_checkpoints k
CROSS JOIN LATERAL unnest(k.positions, k.hashes) WITH ORDINALITY AS seen (place, hash, chain)
LEFT JOIN batches b ON b.chain = seen.chain AND b.place = seen.place
WHERE seen.hash IS DISTINCT FROM
    CASE seen.place WHEN 0 THEN first_hash(seen.chain::smallint) ELSE b.hash END
