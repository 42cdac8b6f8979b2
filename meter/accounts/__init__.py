"""Accounts and the plans that give them their terms."""
