"""Holds: money set aside before a request runs, and ended once."""
