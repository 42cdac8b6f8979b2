-- Remembers the customer of an account, the first that is stored; returns that one.
INSERT INTO stripe_customers (account_id, is_live, customer_id) VALUES ($1, $2, $3)
ON CONFLICT (account_id, is_live) DO UPDATE SET customer_id = stripe_customers.customer_id
RETURNING customer_id
