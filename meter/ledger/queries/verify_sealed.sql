-- V1, V3: the sealed totals of month $1 sum to zero; the ledger of a month whose usage was dropped agrees
-- with its sealed usage.
SELECT 'postings_balance' AS invariant, account_id || ' ' || month::text AS id
FROM sealed_entries WHERE month = $1
GROUP BY month, account_id, template HAVING sum(amount_picos) <> 0
UNION ALL
SELECT 'sealed', coalesce(u.account_id, s.account_id) || ' ' || $1::date::text
FROM (SELECT account_id, charge_picos, provider_cost_picos FROM sealed_usage WHERE month = $1) u
FULL JOIN (
    SELECT account_id, sum(charge) AS charge_picos, sum(cost) AS provider_cost_picos
    FROM (
        SELECT account_id, -customer_picos AS charge, provider_picos AS cost FROM settlements
        WHERE placed_at >= $1::timestamp AT TIME ZONE 'UTC'
          AND placed_at < ($1 + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        UNION ALL
        SELECT account_id, -customer_picos, provider_picos FROM kept_settlements
        WHERE placed_at >= $1::timestamp AT TIME ZONE 'UTC'
          AND placed_at < ($1 + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        UNION ALL
        SELECT p.account_id,
               CASE WHEN e.ledger_account = 'customer' THEN -e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'provider' THEN e.amount_picos ELSE 0 END
        FROM posting_rows p
        JOIN entry_rows e ON e.posting_id = p.id AND e.booked_at = p.booked_at
        WHERE p.hold_id IS NOT NULL
          AND p.booked_at >= $1::timestamp AT TIME ZONE 'UTC'
          AND p.booked_at < ($1 + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        UNION ALL
        SELECT account_id,
               CASE WHEN ledger_account = 'customer' THEN -amount_picos ELSE 0 END,
               CASE WHEN ledger_account = 'provider' THEN amount_picos ELSE 0 END
        FROM sealed_entries
        WHERE month = $1 AND template IN ('settlement', 'excess', 'reversal', 'correction')
    ) moved
    GROUP BY account_id
) s ON s.account_id = u.account_id
WHERE coalesce(u.charge_picos, 0) <> coalesce(s.charge_picos, 0)
   OR coalesce(u.provider_cost_picos, 0) <> coalesce(s.provider_cost_picos, 0)
