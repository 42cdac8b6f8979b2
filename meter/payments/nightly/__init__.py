"""The nightly comparison of Stripe's balance with the postings of payments."""
