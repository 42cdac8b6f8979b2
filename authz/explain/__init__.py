"""Explains the decision about a request, with its reasons and without effects."""
