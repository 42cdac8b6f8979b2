-- Gives an account the terms of a paid invoice, unless a newer invoice gave others, or the
-- subscription has ended. The account is locked.
WITH given AS (
    UPDATE subscriptions s SET plan_id = $2, plan_version = $3, terms_from = $4, paid_until = $5,
        has_terms = true,
        previous_plan_id = coalesce(s.previous_plan_id, (
            SELECT CASE WHEN a.plan_version IS NULL THEN a.plan_id ELSE 'standard' END
            FROM accounts a WHERE a.id = s.account_id))
    WHERE s.id = $1 AND s.ended_at IS NULL AND (s.terms_from IS NULL OR s.terms_from <= $4)
    RETURNING s.account_id)
UPDATE accounts a SET plan_id = $2, plan_version = $3 FROM given g WHERE a.id = g.account_id
