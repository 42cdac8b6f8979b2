"""Compares the books with one another and with the provider's totals."""
