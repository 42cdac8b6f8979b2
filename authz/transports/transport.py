"""The interface between checks and their transports.

Why it is here, and why our own server: docs/adr/0004-own-http2-transport-behind-a-seam.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Final, Protocol

from meter.values import light_value

SERVICE: Final = "envoy.service.auth.v3.Authorization"
METHOD: Final = "Check"
PATH: Final = f"/{SERVICE}/{METHOD}"
MAX_MESSAGE_BYTES: Final = 32 * 2**20
MAX_CONCURRENT_CHECKS: Final = 4_096


@light_value
class Answer:
    """The answer to a check: a serialised CheckResponse.

    `take_back` undoes the effects of the answer: the hold that it placed. It is called at most
    once, and only when it is certain that Envoy gave the call up before it had the whole answer.
    """

    payload: bytes = field(repr=False)
    take_back: Callable[[], None] | None = None


Check = Callable[[bytes], Awaitable[Answer]]


class Transport(Protocol):
    """Passes checks to a function, and the answers of the function back.

    When Envoy gives a check up before the function returned, the function's task is cancelled.
    """

    async def start(self, check: Check, listen: str) -> None:
        """Listen on `unix:/path` or `host:port`. Raises OSError when that is not possible."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept no more checks, and give those under way `grace_s` to finish."""
        ...
