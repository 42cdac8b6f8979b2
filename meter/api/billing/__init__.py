"""The routes that sell credit: for accounts, for administrators, and for Stripe."""
