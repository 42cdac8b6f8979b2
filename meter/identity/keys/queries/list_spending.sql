-- The amounts that a key used of its budgets in the present periods.
SELECT p.period, coalesce(s.spent_picos, 0) AS spent_picos, coalesce(s.held_picos, 0) AS held_picos,
       CASE WHEN p.step IS NOT NULL
            THEN p.starts_on::timestamp AT TIME ZONE 'UTC' END AS starts_at,
       (p.starts_on + p.step) AT TIME ZONE 'UTC' AS ends_at
FROM (SELECT period, step, period_start(period, clock_timestamp()) AS starts_on
      FROM (VALUES ('day', interval '1 day'), ('week', interval '7 days'),
                   ('month', interval '1 month'), ('total', NULL)) AS v (period, step)) p
LEFT JOIN spending s ON s.subject = $1 AND s.period = p.period AND s.starts_on = p.starts_on
