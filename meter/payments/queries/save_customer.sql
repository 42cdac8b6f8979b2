-- Remembers the customer of an account; returns the one that stands. Of two at once the first stays;
-- only the customer $4, which is gone at Stripe, is replaced.
INSERT INTO stripe_customers AS c (account_id, is_live, customer_id) VALUES ($1, $2, $3)
ON CONFLICT (account_id, is_live) DO UPDATE
    SET customer_id = CASE WHEN c.customer_id = $4 THEN $3 ELSE c.customer_id END
RETURNING customer_id
