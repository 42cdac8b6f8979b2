-- The facts that a hold of an account ($1) is judged by, and the number of requests that the
-- account and a credential ($2) run.
SELECT a.balance_picos, a.held_picos,
       expired_credit(a.id, a.next_expiry, clock_timestamp()) AS expired_picos,
       count(h.id) AS account_running,
       count(h.id) FILTER (WHERE h.credential_id = $2) AS key_running
FROM accounts a
LEFT JOIN holds h ON h.account_id = a.id AND h.is_counted AND h.state = 'open'
WHERE a.id = $1
GROUP BY a.id
