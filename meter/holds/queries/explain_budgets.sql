-- The amounts that a credential ($1) and a pass ($2) have used of their budgets in the present
-- periods.
SELECT b.whose, b.period, b.most AS limit_picos,
       coalesce(s.spent_picos, 0) AS spent_picos, coalesce(s.held_picos, 0) AS held_picos
FROM credentials c
LEFT JOIN passes x ON x.id = $2
CROSS JOIN LATERAL (VALUES ('key', c.id, 'day', c.budget_day_picos),
                           ('key', c.id, 'week', c.budget_week_picos),
                           ('key', c.id, 'month', c.budget_month_picos),
                           ('key', c.id, 'total', c.budget_total_picos),
                           ('pass', x.id, 'total', x.budget_picos))
    AS b (whose, subject, period, most)
LEFT JOIN spending s ON s.subject = b.subject AND s.period = b.period
                    AND s.starts_on = period_start(b.period, clock_timestamp())
WHERE c.id = $1 AND b.most IS NOT NULL
