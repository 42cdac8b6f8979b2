-- An account's payments between two instants, after the row $4, oldest first.
SELECT p.id, p.seq, p.account_id, p.paid_at, p.paid_cents, p.credited_picos, p.is_live,
       p.receipt_url,
       (SELECT coalesce(-sum(r.amount_picos), 0)::bigint FROM payment_reversals r
        WHERE r.payment_id = p.id) AS reversed_picos
FROM payments p
WHERE p.account_id = $1 AND p.paid_at >= $2 AND p.paid_at < $3 AND p.seq > $4
ORDER BY p.seq
LIMIT $5
