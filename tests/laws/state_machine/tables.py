"""Tables in memory with transactions: all or nothing, whenever the process dies.

Every key refuses a second row, and before and after each single write the process may be made to
die. `Rules` exists to switch one of them off, for a checker that must notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from meter.errors import BrokenInvariant
from meter.holds.hold import Hold, HoldEnding
from meter.ledger.postings import Posting
from meter.pricing.prices import Price
from meter.settlement.booking import Booking
from meter.settlement.policy import PolicyDecision
from meter.usage.usage import Observation

_ABSENT: Final = object()
T = TypeVar("T")


class Crash(Exception):
    """The process died; what it had not committed is gone."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of the tables; a negative control switches one off."""

    has_unique_endings: bool = True
    has_atomic_commits: bool = True
    has_guarded_balances: bool = True


@dataclass(frozen=True, slots=True)
class Account:
    """Amounts are pico-dollars. `reversed_picos` is the debt that reversed payments left."""

    balance_picos: int = 0
    held_picos: int = 0
    overdrawn_picos: int = 0
    reversed_picos: int = 0


@dataclass(frozen=True, slots=True)
class LiveHold:
    """A hold that sets money aside, and what is known of a request whose usage is unknown."""

    hold: Hold
    expires_at: datetime
    generation_id: str | None = None


@dataclass(frozen=True, slots=True)
class EndedHold:
    """History."""

    hold: Hold
    reason: HoldEnding


@dataclass(frozen=True, slots=True)
class Lookup:
    """A request whose usage is to be found out. `is_watched` is one whose record said 0."""

    generation_id: str | None
    seen: Observation | None
    deadline_at: datetime
    is_disputed: bool = False
    is_decided: bool = False
    is_watched: bool = False


class Tables:
    """The tables of the books, as far as money goes.

    `now` is the database's clock. `crash_in` is after how many writes the process dies.
    `arrived` and `journal` list the messages and postings that were committed, in order.
    """

    def __init__(self, price: Price, now: datetime, rules: Rules = Rules()) -> None:
        self.now = now
        self.crash_in: int | None = None
        self.accounts: dict[str, Account] = {}
        self.holds: dict[UUID, LiveHold] = {}
        self.ended: dict[UUID, EndedHold] = {}
        self.records: dict[UUID, tuple[Booking, ...]] = {}
        self.credits: dict[UUID, tuple[Posting, int]] = {}
        self.lookups: dict[UUID, Lookup] = {}
        self.posted: dict[tuple[UUID, datetime | None], Posting] = {}
        self.conflicts: dict[int, tuple[UUID, str]] = {}
        self.arrived: list[Observation | PolicyDecision] = []
        self.journal: list[Posting] = []
        self._price = price
        self._rules = rules
        self._undo: list[tuple[dict[Any, Any], Any, object]] = []

    def _transact(self, work: Callable[[], T]) -> T:
        arrived, journal = len(self.arrived), len(self.journal)
        self._undo.clear()
        try:
            answer = work()
            self._reach()
        except BaseException:
            if self._rules.has_atomic_commits:
                self._roll_back()
                del self.arrived[arrived:], self.journal[journal:]
            raise
        # From here on it is committed, whether or not the caller lives to hear of it.
        self._reach()
        return answer

    def _roll_back(self) -> None:
        for table, key, before in reversed(self._undo):
            if before is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = before

    def _reach(self) -> None:
        if self.crash_in is None:
            return
        self.crash_in -= 1
        if self.crash_in < 0:
            self.crash_in = None
            raise Crash

    def _put(self, table: dict[Any, Any], key: object, row: object) -> None:
        self._reach()
        self._undo.append((table, key, table.get(key, _ABSENT)))
        table[key] = row

    def _insert(self, table: dict[Any, Any], key: object, row: object) -> None:
        if key in table and self._rules.has_unique_endings:
            raise BrokenInvariant(f"a second row with the key {key}")
        self._put(table, key, row)

    def _take(self, table: dict[Any, Any], key: object) -> None:
        self._reach()
        self._undo.append((table, key, table.pop(key, _ABSENT)))
