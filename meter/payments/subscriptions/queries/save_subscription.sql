-- Stores a subscription as Stripe has it; an answer to an earlier question changes nothing.
INSERT INTO subscriptions AS s (id, purchase_id, account_id, is_live, status, price_id,
                                period_start, period_end, cancels_at, ended_at, asked_at,
                                is_paused)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, price_id = excluded.price_id, period_start = excluded.period_start,
    period_end = excluded.period_end, cancels_at = excluded.cancels_at,
    ended_at = excluded.ended_at, asked_at = excluded.asked_at,
    is_paused = excluded.is_paused
WHERE s.asked_at <= excluded.asked_at
