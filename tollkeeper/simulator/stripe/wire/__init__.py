"""Reads requests and writes answers in the forms that Stripe uses."""
