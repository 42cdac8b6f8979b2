-- Refunds and disputes that moved credit of a payment, in order.
SELECT cause, kind, cents, amount_picos, recorded_at FROM payment_reversals
WHERE payment_id = $1 ORDER BY seq
