-- Gives an account the plan of before, where its subscription has ended or is unpaid for too long.
-- The account is locked.
WITH dropped AS (
    UPDATE subscriptions s SET has_terms = false
    WHERE s.id = $1 AND s.has_terms AND (s.ended_at IS NOT NULL OR s.paid_until < $2::timestamptz
        - CASE WHEN s.status IN ('active', 'trialing', 'past_due') AND NOT s.is_paused THEN $3::interval
               ELSE interval '0' END)
    RETURNING s.account_id, s.plan_id, s.previous_plan_id),
moved AS (
    UPDATE accounts a SET plan_id = d.previous_plan_id, plan_version = NULL
    FROM dropped d
    WHERE a.id = d.account_id AND a.plan_id = d.plan_id AND a.plan_version IS NOT NULL
      AND NOT EXISTS (SELECT FROM subscriptions other
                      WHERE other.account_id = a.id AND other.has_terms AND other.id <> $1))
SELECT previous_plan_id FROM dropped
