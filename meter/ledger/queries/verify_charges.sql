-- V3: the usage records and the postings of a hold agree on account, cost, charge and excess. The
-- totals of months whose usage was dropped are checked by verify_sealed.
SELECT coalesce(u.hold_id, s.hold_id)::text AS id
FROM (SELECT hold_id, min(account_id) AS account_id, sum(charge_picos) AS charge_picos,
             sum(provider_cost_picos) AS provider_cost_picos,
             sum(excess_picos) FILTER (WHERE revision = 0) AS excess_picos
      FROM usage_records GROUP BY hold_id) u
FULL JOIN (
    SELECT p.hold_id, min(p.account_id) AS account_id,
           coalesce(-sum(e.amount_picos) FILTER (WHERE e.ledger_account = 'customer'), 0)
               AS charge_picos,
           coalesce(sum(e.amount_picos) FILTER (WHERE e.ledger_account = 'provider'), 0)
               AS provider_cost_picos,
           coalesce(-sum(e.amount_picos) FILTER (
               WHERE e.ledger_account = 'customer' AND p.template = 'excess'), 0) AS excess_picos
    FROM postings p
    LEFT JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at
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
