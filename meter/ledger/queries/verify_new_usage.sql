-- Contradictions between the postings of the batches after $1, up to $2, and the usage and endings that
-- were written with them: V3. Usage of before batches were noted has none, and is left to the
-- verification of the whole books.
WITH rows AS (
    SELECT p.id, p.batch, p.template, p.account_id, p.hold_id, p.booked_at
    FROM posting_rows p WHERE p.batch > $1 AND p.batch <= $2
), parts AS (
    SELECT r.*, e.ledger_account, e.amount_picos
    FROM rows r LEFT JOIN entry_rows e ON e.posting_id = r.id AND e.booked_at = r.booked_at
), used AS (
    SELECT * FROM usage_rows WHERE batch > $1 AND batch <= $2
)
SELECT 'one_settlement' AS invariant, coalesce(hold_id, min(id::text)::uuid)::text AS id FROM rows
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
    SELECT hold_id, batch, min(account_id) AS account_id, min(booked_at) AS booked_at,
           coalesce(-sum(amount_picos) FILTER (WHERE ledger_account = 'customer'), 0) AS charge,
           coalesce(sum(amount_picos) FILTER (WHERE ledger_account = 'provider'), 0) AS cost
    FROM parts WHERE hold_id IS NOT NULL
      AND date_trunc('month', booked_at AT TIME ZONE 'UTC')::date
          NOT IN (SELECT month FROM dropped_months WHERE kind = 'usage')
    GROUP BY hold_id, batch
) p ON p.hold_id = u.hold_id AND p.batch = u.batch
WHERE (u.charge IS DISTINCT FROM p.charge OR u.cost IS DISTINCT FROM p.cost
       OR u.account_id IS DISTINCT FROM p.account_id)
  AND (u.hold_id IS NOT NULL OR NOT EXISTS (
       SELECT FROM usage_rows b
       WHERE b.hold_id = p.hold_id AND b.placed_at = p.booked_at AND b.batch IS NULL
         AND b.charge_picos <> 0))
UNION ALL
SELECT 'endings', o.id::text
FROM (SELECT id, placed_at FROM settlements WHERE batch > $1 AND batch <= $2
      UNION ALL
      SELECT id, placed_at FROM kept_settlements WHERE batch > $1 AND batch <= $2) o
WHERE EXISTS (SELECT FROM holds h WHERE h.id = o.id)
   OR EXISTS (SELECT FROM ended_hold_rows h WHERE h.id = o.id AND h.placed_at = o.placed_at)
UNION ALL
SELECT 'endings', u.hold_id::text
FROM used u
LEFT JOIN ended_hold_rows h
    ON h.id = u.hold_id AND h.placed_at = u.placed_at AND h.account_id = u.account_id
WHERE u.kind <> 'correction' AND (h.id IS NULL OR (h.state = 'settled') = (u.kind = 'late'))
