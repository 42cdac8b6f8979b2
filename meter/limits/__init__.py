"""Limits as data: rules, rates and the windows in which they are counted."""
