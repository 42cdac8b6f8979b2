-- V11: every batch of the ledger has the entries that it signed, and signed the batch before; the
-- head is the newest batch. A batch whose postings were dropped with their month is checked by its
-- links only; the number of entries missing in all equals the number that were sealed.
WITH signed AS (
    SELECT p.batch, count(DISTINCT p.id) AS postings, count(e.line) AS entries,
           string_agg(
               ledger_line(p.id, p.booked_at, p.template, p.account_id, p.hold_id, p.recorded_at,
                           p.reason, e.line, e.ledger_account, e.account_id, e.amount_picos),
               '' ORDER BY p.id, e.line) AS lines
    FROM postings p LEFT JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at
    GROUP BY p.batch
), linked AS (
    SELECT b.*, lag(b.number, 1, 0::bigint) OVER numbers AS number_before,
           lag(b.hash, 1, sha256('tollkeeper ledger')) OVER numbers AS hash_before
    FROM ledger_batches b WINDOW numbers AS (ORDER BY b.number)
)
SELECT coalesce(l.number, s.batch)::text AS id
FROM linked l FULL JOIN signed s ON s.batch = l.number
WHERE l.number IS NULL
   OR l.number <> l.number_before + 1
   OR l.previous_hash <> l.hash_before
   OR CASE WHEN l.postings = s.postings AND l.entries = s.entries
           THEN l.hash <> sha256(l.previous_hash || convert_to(s.lines, 'UTF8'))
           ELSE l.number > (SELECT coalesce(max(last_batch), 0) FROM dropped_months
                            WHERE kind = 'ledger') END
UNION ALL
SELECT 'entries'
WHERE (SELECT coalesce(sum(entries), 0) FROM ledger_batches)
   <> (SELECT count(*) FROM entries) + (SELECT coalesce(sum(entries), 0) FROM sealed_entries)
UNION ALL
SELECT 'head'
FROM (SELECT coalesce(max(number), 0) AS number,
             coalesce((array_agg(hash ORDER BY number DESC))[1], sha256('tollkeeper ledger'))
                 AS hash
      FROM ledger_batches) youngest
LEFT JOIN ledger_head h ON h.number = youngest.number AND h.hash = youngest.hash
WHERE h.number IS NULL
