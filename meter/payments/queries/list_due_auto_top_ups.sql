-- Accounts whose available credit is below their threshold, with no top-up in flight. The ceiling
-- is judged again under a lock.
SELECT t.account_id FROM auto_top_ups t JOIN accounts a ON a.id = t.account_id
WHERE t.paused_reason IS NULL AND t.next_attempt_at <= clock_timestamp() AND NOT a.is_suspended
  AND a.balance_picos - a.held_picos - expired_credit(a.id, a.next_expiry, clock_timestamp())
      < t.threshold_picos
  AND NOT EXISTS (SELECT 1 FROM purchases p WHERE p.account_id = t.account_id
                    AND p.kind = 'auto_top_up' AND p.state = 'open')
ORDER BY t.next_attempt_at LIMIT $1
