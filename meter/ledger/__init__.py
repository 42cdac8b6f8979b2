"""The ledger: double-entry and append-only. See README.md beside this file."""
