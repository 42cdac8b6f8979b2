"""Payments under faults: credit must equal the books of Stripe's stand-in, to the cent."""
