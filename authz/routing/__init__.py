"""Chooses the provider that serves a request, and the key that it goes out with."""
