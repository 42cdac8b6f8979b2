-- An account's invoices of plans that were paid between two instants, after the row ($4, $5), in the
-- order in which they were paid: they may be recorded in any order. An account has few.
SELECT i.id, i.account_id, i.subscription_id, i.plan_id, i.paid_cents, i.credited_picos,
       i.period_end, i.paid_at
FROM subscription_invoices i
WHERE i.account_id = $1 AND i.paid_at >= $2 AND i.paid_at < $3
  AND ($4::timestamptz IS NULL OR (i.paid_at, i.id) > ($4, $5::text))
ORDER BY i.paid_at, i.id
LIMIT $6
