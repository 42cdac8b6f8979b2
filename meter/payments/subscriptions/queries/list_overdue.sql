-- Subscriptions whose period is over and whose next one is not paid, the oldest first.
SELECT id, account_id FROM subscriptions
WHERE has_terms AND is_live = $1 AND paid_until < $2
ORDER BY paid_until LIMIT $3
