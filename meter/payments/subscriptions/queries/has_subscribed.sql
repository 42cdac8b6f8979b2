-- Returns whether an account ever had a subscription.
SELECT EXISTS (SELECT FROM subscriptions WHERE account_id = $1)
