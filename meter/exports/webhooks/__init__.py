"""Tells accounts of events at addresses of theirs, signed as Standard Webhooks has it."""
