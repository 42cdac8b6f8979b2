"""Refusals of the simulator, which a dialect puts in its provider's shape."""


class Refusal(Exception):
    """A request that is answered with a status and billed nothing.

    ``code`` is the provider's own name of the reason, where it has one.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
