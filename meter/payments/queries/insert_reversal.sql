-- Records what took credit of a payment back, or gave it back again. Without a posting, as of a
-- payment that gave no credit, it may be recorded already.
INSERT INTO payment_reversals (cause, payment_id, account_id, kind, cents, amount_picos, posting_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (cause) DO NOTHING
