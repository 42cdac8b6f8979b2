"""Charge against bill of requests that nobody reads to the end."""
