"""Measures how soon revocation shows and how exactly limits hold, on a stack with two authz."""
