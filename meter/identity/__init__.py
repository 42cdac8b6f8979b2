"""Credentials and the principals behind them: keys, passes, identities, certificates."""
