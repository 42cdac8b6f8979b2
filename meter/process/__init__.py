"""Matters of a running process: start, stop, periodic work, logging."""
