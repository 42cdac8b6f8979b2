"""Accounts, which pay."""
