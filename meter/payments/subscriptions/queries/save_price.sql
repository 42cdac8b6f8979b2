-- Remembers which plan a price at Stripe belongs to.
INSERT INTO plan_prices (price_id, is_live, plan_id, price_picos, period)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT (price_id) DO NOTHING
