"""Sheds checks that could not be decided in time, and shares this process among accounts."""

from typing import Final

from authz.metrics import Metrics
from meter.errors import Overloaded
from meter.holds.hold import Holds

# A request whose hold would take longer than this is refused before its body is read. Below the
# greatest age of a judgement (0.9 s) and the deadline (1.5 s), which would waste the work.
MAX_HOLD_WAIT_S: Final = 0.5
# Up to this many checks under way at once, accounts are not compared: each check takes
# milliseconds, so more of them means that the process cannot keep up.
BUSY_CHECKS: Final = 512
# What an account may always have under way, however many accounts are active.
LEAST_SHARE: Final = 32


class Load:
    """Counts the checks under way of each account.

    While the process is busy, an account may have at most an equal share of BUSY_CHECKS, so that
    a flood is shed for the account that causes it.
    """

    def __init__(self, holds: Holds, metrics: Metrics) -> None:
        self._holds = holds
        self._metrics = metrics
        self._checks = 0
        self._by_account: dict[str, int] = {}

    def enter(self, account_id: str) -> None:
        """Count one more check. Raises Overloaded, without counting, when it must be shed."""
        own = self._by_account.get(account_id, 0)
        if self._checks >= BUSY_CHECKS and own >= max(
            LEAST_SHARE, BUSY_CHECKS // len(self._by_account)
        ):
            self._metrics.count_shed(account_id, "share")
            raise Overloaded("the account has more than its share of the checks under way")
        if self._holds.expected_wait_s(account_id) > MAX_HOLD_WAIT_S:
            self._metrics.count_shed(account_id, "wait")
            raise Overloaded("the hold would come too late")
        self._by_account[account_id] = own + 1
        self._checks += 1

    def leave(self, account_id: str) -> None:
        """Count one check less."""
        self._checks -= 1
        left = self._by_account[account_id] - 1
        if left:
            self._by_account[account_id] = left
        else:
            del self._by_account[account_id]
