"""Objects that recur: subscriptions, invoices, the customer portal."""
