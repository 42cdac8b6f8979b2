-- Tells webhooks with ids after $1, up to $2, of budgets of keys that are spent to their percentage:
-- once for each key, period and limit.
WITH reached AS (
    SELECT w.id, c.id AS key_id, c.name, b.period, b.most, s.starts_on, s.spent_picos
    FROM webhooks w
    JOIN credentials c ON c.account_id = w.account_id AND c.kind = 'key' AND c.revoked_at IS NULL
    CROSS JOIN LATERAL (VALUES ('day', c.budget_day_picos), ('week', c.budget_week_picos),
                               ('month', c.budget_month_picos), ('total', c.budget_total_picos))
        AS b (period, most)
    JOIN spending s ON s.subject = c.id AND s.period = b.period
                   AND s.starts_on = period_start(b.period, clock_timestamp())
    WHERE w.id > $1 AND w.id <= $2 AND 'budget.reached' = ANY (w.events) AND b.most IS NOT NULL
      AND s.spent_picos::numeric * 100 >= b.most::numeric * w.budget_percent
), told AS (
    INSERT INTO webhook_messages (webhook_id, type, cause, body)
    SELECT r.id, 'budget.reached', format('%s:%s:%s:%s', r.key_id, r.period, r.starts_on, r.most),
           webhook_body('budget.reached', json_build_object(
               'key_id', r.key_id, 'name', r.name, 'period', r.period,
               'spent', usd(r.spent_picos), 'budget', usd(r.most)))
    FROM reached r ORDER BY r.id
    ON CONFLICT (webhook_id, type, cause) DO NOTHING
    RETURNING webhook_id
), due AS (
    UPDATE webhooks w SET is_due = true
    FROM (SELECT k.id FROM webhooks k WHERE k.id IN (SELECT t.webhook_id FROM told t)
          ORDER BY k.id FOR NO KEY UPDATE) k
    WHERE w.id = k.id
)
SELECT count(*) FROM told
