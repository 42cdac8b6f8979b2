-- A payment by its id at Stripe, with how much of its credit was taken back.
SELECT p.*, (SELECT coalesce(-sum(r.amount_picos), 0)::bigint FROM payment_reversals r
             WHERE r.payment_id = p.id) AS reversed_picos
FROM payments p WHERE p.id = $1
