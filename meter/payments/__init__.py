"""Selling credit through Stripe, once for each payment. See README.md beside this file."""
