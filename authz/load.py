"""Sheds checks that could not be decided in time, and shares this process among accounts."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from authz.metrics import Metrics
from meter.errors import Overloaded
from meter.holds.hold import Holds

# A request whose hold would take longer than this is refused before its body is read. Below the
# greatest age of a judgement (0.9 s) and the deadline (1.5 s), which would waste the work.
MAX_HOLD_WAIT_S: Final = 0.5
# Up to this many checks at once, none is shed for the share of its account: each check takes
# milliseconds, so more of them means that the process cannot keep up.
BUSY_CHECKS: Final = 512
# What an account may always have here, however many accounts are active.
LEAST_SHARE: Final = 32
# The checks of an account that are decided at once while other accounts are active too. A check
# takes a few milliseconds, so this is as much as one instance decides in a second by itself.
AT_ONCE: Final = 4
# For so long after a check of another account, an account is not taken for the only one.
SHARED_FOR_S: Final = 1.0


@dataclass(slots=True)
class _Account:
    deciding: int = 0
    waiting: int = 0
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)


class Load:
    """Counts the checks of each account, and lets them wait in turn.

    While several accounts are active, AT_ONCE checks of an account are decided at once and its
    others wait, so that a flood queues before the work that all accounts share (this process,
    Redis, Postgres) and not within it. While the process is busy, an account may have at most an
    equal share of BUSY_CHECKS, so that a flood is shed for the account that causes it.
    """

    def __init__(self, holds: Holds, metrics: Metrics) -> None:
        self._holds = holds
        self._metrics = metrics
        self._checks = 0
        self._accounts: dict[str, _Account] = {}
        self._last_account_id = ""
        self._shared_until_s = 0.0

    def enter(self, account_id: str, now_s: float) -> asyncio.Future[None] | None:
        """Count one more check; return the turn to wait for with `wait`, None if it is now.

        Raises Overloaded, without counting, when the check must be shed.
        """
        account = self._accounts.get(account_id)
        own = 0 if account is None else account.deciding + account.waiting
        if self._checks >= BUSY_CHECKS and own >= max(
            LEAST_SHARE, BUSY_CHECKS // len(self._accounts)
        ):
            self._metrics.count_shed(account_id, "share")
            raise Overloaded("the account has more than its share of the checks under way")
        if self._holds.expected_wait_s(account_id) > MAX_HOLD_WAIT_S:
            self._metrics.count_shed(account_id, "wait")
            raise Overloaded("the hold would come too late")
        if account_id != self._last_account_id:
            if self._last_account_id:
                self._shared_until_s = now_s + SHARED_FOR_S
            self._last_account_id = account_id
        if account is None:
            account = self._accounts[account_id] = _Account()
        self._checks += 1
        if account.deciding < AT_ONCE or now_s >= self._shared_until_s:
            account.deciding += 1
            return None
        account.waiting += 1
        turn = asyncio.get_running_loop().create_future()
        account.turns.append(turn)
        return turn

    async def wait(self, account_id: str, turn: asyncio.Future[None]) -> None:
        """Wait for a turn. A wait that is cancelled counts no longer; others must `leave`."""
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._accounts[account_id].waiting -= 1
                self._end(account_id)
            else:
                self.leave(account_id)
            raise

    def leave(self, account_id: str) -> None:
        """Count one check less, and give its turn to the next one of the account."""
        account = self._accounts[account_id]
        account.deciding -= 1
        while account.turns:
            turn = account.turns.popleft()
            if not turn.done():
                turn.set_result(None)
                account.waiting -= 1
                account.deciding += 1
                break
        self._end(account_id)

    @property
    def is_idle(self) -> bool:
        """True while no check is here."""
        return not self._checks and not self._accounts

    def _end(self, account_id: str) -> None:
        self._checks -= 1
        account = self._accounts[account_id]
        if not account.deciding and not account.waiting:
            del self._accounts[account_id]
