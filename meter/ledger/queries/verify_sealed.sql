-- V1, V3: the ledger of months whose usage was dropped agrees with the sealed totals.
SELECT coalesce(u.account_id, s.account_id) || ' ' || coalesce(u.month, s.month)::text AS id
FROM sealed_usage u
FULL JOIN (
    SELECT date_trunc('month', p.booked_at AT TIME ZONE 'UTC')::date AS month, p.account_id,
           coalesce(-sum(e.amount_picos) FILTER (WHERE e.ledger_account = 'customer'), 0)
               AS charge_picos,
           coalesce(sum(e.amount_picos) FILTER (WHERE e.ledger_account = 'provider'), 0)
               AS provider_cost_picos
    FROM postings p JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at
    WHERE p.hold_id IS NOT NULL
      AND date_trunc('month', p.booked_at AT TIME ZONE 'UTC')::date
          IN (SELECT month FROM dropped_months WHERE kind = 'usage')
    GROUP BY 1, 2
    UNION ALL
    SELECT month, account_id,
           coalesce(-sum(amount_picos) FILTER (WHERE ledger_account = 'customer'), 0),
           coalesce(sum(amount_picos) FILTER (WHERE ledger_account = 'provider'), 0)
    FROM sealed_entries
    WHERE template IN ('settlement', 'excess', 'reversal', 'correction')
    GROUP BY 1, 2
) s ON s.month = u.month AND s.account_id = u.account_id
WHERE coalesce(u.charge_picos, 0) <> coalesce(s.charge_picos, 0)
   OR coalesce(u.provider_cost_picos, 0) <> coalesce(s.provider_cost_picos, 0)
