"""Errors that keep a stack from running."""

from tollkeeper.errors import CommandError


class StackError(CommandError):
    """The stack cannot start, stop or say how it is."""
