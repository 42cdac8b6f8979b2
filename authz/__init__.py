"""Decides each request: may it pass, and under which hold. Imports `meter`, never the reverse."""
