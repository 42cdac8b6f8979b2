"""What can stand between a person and a running stack."""

from tollkeeper.errors import CommandError


class StackError(CommandError):
    """The stack cannot start, stop or say how it is."""
