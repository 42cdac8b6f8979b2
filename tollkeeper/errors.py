"""The error that every command raises when it cannot do its work."""


class CommandError(Exception):
    """The command cannot do what was asked.

    The message is one sentence for the person at the terminal: it names what is
    wrong and what to do about it. It never holds a secret. The command line
    prints it on stderr and ends with exit code 1, without a traceback.
    """
