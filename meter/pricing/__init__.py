"""Prices of models, and estimates of what a request may cost at most."""
