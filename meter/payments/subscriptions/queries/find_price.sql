-- The newest price at Stripe for a plan's price.
SELECT price_id FROM plan_prices
WHERE plan_id = $1 AND is_live = $2 AND price_picos = $3 AND period = $4
ORDER BY created_at DESC LIMIT 1
