-- An account's automatic top-ups, with what they have bought since the month began.
SELECT t.account_id, t.threshold_picos, t.amount_picos, t.ceiling_picos, t.paused_reason,
       (SELECT coalesce(sum(p.amount_picos), 0)::bigint FROM purchases p
        WHERE p.account_id = t.account_id AND p.kind = 'auto_top_up' AND p.state <> 'ended'
          AND p.created_at >= date_trunc('month', clock_timestamp(), 'UTC')) AS spent_picos
FROM auto_top_ups t WHERE t.account_id = $1
