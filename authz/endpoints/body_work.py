"""The work on bodies: large ones apart from the event loop, and a share of it for each account.

Reading a body is the most expensive work that a caller can cause. Envoy sends whole large bodies to
an authz of their own, so that they do not share an event loop with the checks of small requests.
There too, work on a large body runs in a thread, one body at a time. Python runs one thread at a
time, but the loop gets its turn between the calls into C, each of which `weight.py` bounds.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from authz.decision import Deny, Reason, deny
from authz.endpoints.body import Body
from authz.endpoints.endpoint import Endpoint
from authz.request import AuthRequest
from meter.clock import Clock

# Of the time of the event loop, and the seconds of work that an account may ask for at once.
SHARE: Final = 0.25
BURST_S: Final = 1.0
# Receiving a body from Envoy, before anything here sees it: 3 ms for a MiB.
RECEIPT_S_PER_BYTE: Final = 3e-9
PRUNE_ABOVE: Final = 10_000

_T = TypeVar("_T")


class BodyWork:
    """Runs work on bodies, and refuses accounts that cause too much of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "bodies")
        # The time at which an account has paid for its work, at SHARE seconds each second.
        self._paid_at_s: dict[str, float] = {}
        self._prune_above = PRUNE_ABOVE
        # Work of which the other instances were not told yet, in seconds.
        self._unreported_s: dict[str, float] = {}

    def find_refusal(self, account_id: str) -> Deny | None:
        """Return the refusal of an account whose bodies took too much time; None otherwise."""
        paid_at_s = self._paid_at_s.get(account_id)
        if paid_at_s is None:
            return None
        over_s = paid_at_s - self._clock.monotonic_s() - BURST_S / SHARE
        if over_s <= 0:
            return None
        return refusal_of_work(over_s)

    def charge(self, account_id: str, spent_s: float) -> None:
        """Note that work for an account took this long."""
        now_s = self._clock.monotonic_s()
        paid_at_s = max(self._paid_at_s.get(account_id, now_s), now_s)
        self._paid_at_s[account_id] = paid_at_s + spent_s / SHARE
        if len(self._paid_at_s) > self._prune_above:
            kept = {one: at_s for one, at_s in self._paid_at_s.items() if at_s > now_s}
            self._paid_at_s = kept
            self._unreported_s = {one: s for one, s in self._unreported_s.items() if one in kept}
            self._prune_above = max(PRUNE_ABOVE, 2 * len(kept))

    async def read(
        self, account_id: str, endpoint: Endpoint, request: AuthRequest, max_bytes: int
    ) -> Body | Deny:
        """Read a large body, unless earlier bodies of the account took too much time meanwhile."""

        def read() -> Body | Deny:
            return self.find_refusal(account_id) or endpoint.read(request, max_bytes)

        self._charge_large(account_id, len(request.body) * RECEIPT_S_PER_BYTE)
        return await self.run(account_id, read)

    async def run(self, account_id: str, work: Callable[[], _T]) -> _T:
        """Return the result of work on a large body, which an account is charged for."""

        def timed() -> tuple[_T, float]:
            began_s = time.thread_time()
            # A body makes no cycles, and searching its many new objects for some, again and again,
            # would take longer than to parse it.
            gc.disable()
            try:
                result = work()
            finally:
                gc.enable()
            return result, time.thread_time() - began_s

        loop = asyncio.get_running_loop()
        result, spent_s = await loop.run_in_executor(self._thread, timed)
        self._charge_large(account_id, spent_s)
        return result

    def take_unreported(self, account_id: str) -> float:
        """Return the seconds of work on large bodies of an account since the last such call."""
        return self._unreported_s.pop(account_id, 0.0)

    def _charge_large(self, account_id: str, spent_s: float) -> None:
        self.charge(account_id, spent_s)
        self._unreported_s[account_id] = self._unreported_s.get(account_id, 0.0) + spent_s

    def close(self) -> None:
        """End the thread, after the work that it does at this moment."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def refusal_of_work(over_s: float) -> Deny:
    """Return the refusal of an account whose bodies took too much time, for so long."""
    return deny(
        Reason.RATE_LIMIT_EXCEEDED,
        "Reading the request bodies of this account takes too much time. Send fewer or smaller "
        "bodies, or wait as long as 'retry-after' says.",
        retry_after_s=over_s,
    )
