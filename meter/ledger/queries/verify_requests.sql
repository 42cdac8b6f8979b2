-- V3, for the holds placed from $1 until $2: their usage records and postings agree on account, cost,
-- charge and excess; a hold has one settlement and one excess posting at most; it is live or ended; it
-- is settled if and only if it has a settlement of the same account, and a late charge belongs to one
-- that ended without a charge. An ordinary settlement is all of this in one row, and on both sides.
-- `sealed_usage` stands for months whose usage was dropped.
WITH used AS (
    SELECT * FROM usage_rows WHERE placed_at >= $1 AND placed_at < $2
), posted AS (
    SELECT * FROM posting_rows WHERE booked_at >= $1 AND booked_at < $2
), ended AS (
    SELECT * FROM ended_hold_rows WHERE placed_at >= $1 AND placed_at < $2
)
SELECT 'charges' AS invariant, coalesce(u.hold_id, s.hold_id)::text AS id
FROM (SELECT hold_id, min(account_id) AS account_id, sum(charge_picos) AS charge_picos,
             sum(provider_cost_picos) AS provider_cost_picos,
             coalesce(sum(excess_picos) FILTER (WHERE revision = 0), 0) AS excess_picos
      FROM used GROUP BY hold_id) u
FULL JOIN (
    SELECT p.hold_id, min(p.account_id) AS account_id,
           coalesce(-sum(e.amount_picos) FILTER (WHERE e.ledger_account = 'customer'), 0)
               AS charge_picos,
           coalesce(sum(e.amount_picos) FILTER (WHERE e.ledger_account = 'provider'), 0)
               AS provider_cost_picos,
           coalesce(-sum(e.amount_picos) FILTER (
               WHERE e.ledger_account = 'customer' AND p.template = 'excess'), 0) AS excess_picos
    FROM posted p
    LEFT JOIN entry_rows e ON e.posting_id = p.id AND e.booked_at = p.booked_at
    WHERE p.hold_id IS NOT NULL
      AND date_trunc('month', p.booked_at AT TIME ZONE 'UTC')::date
          NOT IN (SELECT month FROM dropped_months WHERE kind = 'usage')
    GROUP BY p.hold_id
) s ON s.hold_id = u.hold_id
WHERE u.hold_id IS NULL
   OR u.charge_picos <> coalesce(s.charge_picos, 0)
   OR u.provider_cost_picos <> coalesce(s.provider_cost_picos, 0)
   OR u.excess_picos <> coalesce(s.excess_picos, 0)
   OR (s.hold_id IS NOT NULL AND s.account_id <> u.account_id)
UNION ALL
SELECT 'one_settlement', coalesce(hold_id::text, min(id::text)) FROM posted
WHERE template IN ('settlement', 'excess')
GROUP BY hold_id, template HAVING count(*) > 1 OR hold_id IS NULL
UNION ALL
SELECT 'one_settlement', p.hold_id::text FROM posted p
WHERE p.template = 'settlement' AND (
    EXISTS (SELECT FROM settlements s WHERE s.id = p.hold_id AND s.placed_at = p.booked_at)
    OR EXISTS (SELECT FROM kept_settlements s
               WHERE s.id = p.hold_id AND s.placed_at = p.booked_at))
UNION ALL
SELECT 'endings', e.id::text FROM ended e
WHERE EXISTS (SELECT FROM holds h WHERE h.id = e.id)
   OR EXISTS (SELECT FROM settlements s WHERE s.id = e.id AND s.placed_at = e.placed_at)
UNION ALL
SELECT 'endings', coalesce(h.id, u.hold_id)::text
FROM (SELECT id, placed_at, account_id FROM ended WHERE state = 'settled') h
FULL JOIN (SELECT hold_id, placed_at, account_id FROM used
           WHERE kind IN ('settlement', 'provisional')) u
    ON u.hold_id = h.id AND u.placed_at = h.placed_at AND u.account_id = h.account_id
WHERE h.id IS NULL OR u.hold_id IS NULL
UNION ALL
SELECT 'endings', u.hold_id::text
FROM used u
LEFT JOIN ended h
    ON h.id = u.hold_id AND h.placed_at = u.placed_at AND h.account_id = u.account_id
       AND h.state <> 'settled'
WHERE u.kind = 'late' AND h.id IS NULL
