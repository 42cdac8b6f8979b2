"""Measurements, each against a reference: see README.md beside this file."""
