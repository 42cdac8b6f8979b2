"""Finds the principal that a credential belongs to, and judges what the principal may do."""
