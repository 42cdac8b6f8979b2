-- Payments, newest first, older than the row $2; of one account where $1 names one.
SELECT p.*, (SELECT coalesce(-sum(r.amount_picos), 0)::bigint FROM payment_reversals r
             WHERE r.payment_id = p.id) AS reversed_picos
FROM payments p
WHERE ($1::text IS NULL OR p.account_id = $1) AND ($2::bigint IS NULL OR p.seq < $2)
ORDER BY p.seq DESC LIMIT $3
