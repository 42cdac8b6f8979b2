-- The cost of the requests of a credential under own keys, in all and in the present periods of UTC.
-- Ordinary settlements, which come into the totals later, are never under an own key.
SELECT coalesce(sum(d.own_key_cost_picos), 0) AS total_picos,
       coalesce(sum(d.own_key_cost_picos) FILTER (WHERE d.day >= p.day), 0) AS day_picos,
       coalesce(sum(d.own_key_cost_picos) FILTER (WHERE d.day >= p.week), 0) AS week_picos,
       coalesce(sum(d.own_key_cost_picos) FILTER (WHERE d.day >= p.month), 0) AS month_picos
FROM (SELECT period_start('day', clock_timestamp()) AS day,
             period_start('week', clock_timestamp()) AS week,
             period_start('month', clock_timestamp()) AS month) p
LEFT JOIN usage_days d ON d.account_id = $1 AND d.credential_id = $2 AND NOT d.is_ordinary
