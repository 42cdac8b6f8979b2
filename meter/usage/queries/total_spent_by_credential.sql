-- The charges of a credential in all, and in the present periods of UTC.
SELECT coalesce(sum(k.charge_picos), 0) AS total_picos,
       coalesce(sum(k.charge_picos) FILTER (WHERE k.day >= p.day), 0) AS day_picos,
       coalesce(sum(k.charge_picos) FILTER (WHERE k.day >= p.week), 0) AS week_picos,
       coalesce(sum(k.charge_picos) FILTER (WHERE k.day >= p.month), 0) AS month_picos
FROM (SELECT period_start('day', clock_timestamp()) AS day,
             period_start('week', clock_timestamp()) AS week,
             period_start('month', clock_timestamp()) AS month) p
LEFT JOIN key_days k ON k.credential_id = $1
