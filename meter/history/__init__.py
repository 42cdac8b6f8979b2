"""Months of usage and ledger: prepared ahead, sealed and dropped after their time."""
