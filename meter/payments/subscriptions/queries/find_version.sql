-- The newest terms of a plan that have the price of Stripe's price $1.
SELECT v.*, p.current_version, p.least_version, p.retired_at
FROM plan_prices s JOIN plans p ON p.id = s.plan_id
JOIN plan_versions v ON v.plan_id = p.id AND v.price_picos = s.price_picos AND v.period = s.period
WHERE s.price_id = $1 AND s.is_live = $2
ORDER BY v.version DESC LIMIT 1
