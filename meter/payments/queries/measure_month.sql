-- The sum of an account's automatic top-ups since the month began, those in flight included; and
-- whether its available credit is still below the threshold, now that its row is locked.
SELECT a.balance_picos - a.held_picos < t.threshold_picos AS is_low,
       (SELECT coalesce(sum(p.amount_picos), 0)::bigint FROM purchases p
        WHERE p.account_id = t.account_id AND p.kind = 'auto_top_up' AND p.state <> 'ended'
          AND p.created_at >= date_trunc('month', clock_timestamp(), 'UTC')) AS spent_picos
FROM auto_top_ups t JOIN accounts a ON a.id = t.account_id
WHERE t.account_id = $1
