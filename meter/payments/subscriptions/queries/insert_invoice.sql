-- Records a paid invoice once; no row where it was recorded before.
INSERT INTO subscription_invoices (id, subscription_id, account_id, plan_id, plan_version,
                                   paid_cents, credited_picos, posting_id, period_end, paid_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (id) DO NOTHING RETURNING id
