"""Commands about selling credit through Stripe."""
