"""Subscriptions to plans through Stripe."""
