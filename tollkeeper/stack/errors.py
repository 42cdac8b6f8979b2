"""What can stand between a person and a running stack."""


class StackError(Exception):
    """The stack cannot do what was asked.

    The message is one sentence for the person at the terminal: it names what is
    wrong and what to do about it. It never holds a secret.
    """
