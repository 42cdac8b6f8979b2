"""Keeps the processes of a stack alive, and ends them in order."""
