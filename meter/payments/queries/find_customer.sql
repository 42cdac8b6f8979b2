-- The customer at Stripe that stands for an account; its email for making one.
SELECT a.email, a.is_suspended, c.customer_id
FROM accounts a LEFT JOIN stripe_customers c ON c.account_id = a.id AND c.is_live = $2
WHERE a.id = $1
