"""Turns access-log entries into observations, and settles them in batches."""
