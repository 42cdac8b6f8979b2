"""A stand-in for Stripe: its API paths, state machines and signed webhooks, with books of its own.

The only client is the `stripe` library. Nothing here is shared with `meter`, so that an error in
one cannot hide in the other.
"""
