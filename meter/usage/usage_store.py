"""Usage records in Postgres, added up."""

import asyncio
import time
from datetime import date
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from cachetools import TLRUCache, TTLCache

from meter.errors import InvalidRequest, StoreUnavailable
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.usage.usage_totals import (
    NO_SPENDING,
    CredentialSpending,
    Grouping,
    PeriodSums,
    UsageTotals,
)

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.usage")
_TOTAL_USAGE: Final = _QUERIES["total_usage"]
_TOTAL_CHARGED: Final = _QUERIES["total_charged"]
_TOTAL_SPENT_BY_CREDENTIAL: Final = _QUERIES["total_spent_by_credential"]
_TOTAL_OWN_KEY_COST: Final = _QUERIES["total_own_key_cost"]

# Adding up reads a row for each day, key and model of the period, and the latest settlements. It
# takes two of the pool's connections at most, one of them for an account, and neither for longer
# than this.
MOST_AT_ONCE: Final = 2
MOST_WAITING: Final = 64
MOST_S: Final = 5.0
# An answer that took longer than SLOW_S is given again for CACHED_TIMES as long as it took, so that
# whoever asks all the time keeps a connection busy for a twentieth of it.
SLOW_S: Final = 0.2
CACHED_TIMES: Final = 20
MOST_CACHED: Final = 1_000
# What an account was charged in all is told for so long.
TOTAL_CACHED_S: Final = 60.0

# The account, how its usage is grouped, the first and the last day, and the page.
_Question = tuple[str, Grouping, tuple[date, date], str | None, int]


class UsageStore:
    """Adds up usage records. Raises StoreUnavailable during an outage.

    Equal questions at the same time are answered by one query, and so are those that follow a slow
    answer. Others of one account wait for each other, so that an account which asks all the time
    keeps no other waiting for long.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._accounts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._slow: TLRUCache[_Question, tuple[float, list[UsageTotals]]] = TLRUCache(
            MOST_CACHED, lambda _, answer, now_s: now_s + CACHED_TIMES * answer[0]
        )
        self._adding: dict[_Question, asyncio.Task[list[UsageTotals]]] = {}
        self._charged: TTLCache[str, int] = TTLCache(MOST_CACHED, TOTAL_CACHED_S)

    async def list_totals(
        self,
        account_id: str,
        grouping: Grouping,
        period: tuple[date, date],
        after: str | None,
        limit: int,
    ) -> list[UsageTotals]:
        """Return totals by group, in order of the group, of a first to a last day of UTC.

        They may be as old as CACHED_TIMES what it took to add them up. Raises StoreUnavailable
        during an outage, and when MOST_WAITING questions wait already; InvalidRequest where adding
        up takes longer than MOST_S.
        """
        question = (account_id, grouping, period, after, limit)
        known = self._slow.get(question)
        if known is not None:
            return known[1]
        adding = self._adding.get(question)
        if adding is None:
            if len(self._adding) >= MOST_WAITING:
                raise StoreUnavailable("too many requests for usage wait")
            adding = self._adding[question] = asyncio.ensure_future(self._add_up(question))
            adding.add_done_callback(lambda _: self._adding.pop(question))
        # A caller that leaves must not take the answer from the others.
        return await asyncio.shield(adding)

    async def total_charged(self, account_id: str) -> int:
        """Return what an account was charged in all, in pico-dollars, as of TOTAL_CACHED_S ago."""
        known = self._charged.get(account_id)
        if known is not None:
            return known
        async with self._turn(account_id), self._room, acquire(self._pool) as connection:
            total = int(await connection.fetchval(_TOTAL_CHARGED, account_id, timeout=MOST_S))
        self._charged[account_id] = total
        return total

    async def find_spending(
        self, account_id: str, credential_id: str, has_own_keys: bool
    ) -> CredentialSpending:
        """Return what a credential was charged, and what it cost under own keys."""
        async with self._turn(account_id), self._room, acquire(self._pool) as connection:
            charged = await connection.fetchrow(
                _TOTAL_SPENT_BY_CREDENTIAL, credential_id, timeout=MOST_S
            )
            own = None
            if has_own_keys:
                own = await connection.fetchrow(
                    _TOTAL_OWN_KEY_COST, account_id, credential_id, timeout=MOST_S
                )
        assert charged is not None
        own_keys = NO_SPENDING if own is None else _to_periods(own)
        return CredentialSpending(_to_periods(charged), own_keys)

    def _turn(self, account_id: str) -> asyncio.Lock:
        turn = self._accounts.get(account_id)
        if turn is None:
            turn = self._accounts[account_id] = asyncio.Lock()
        return turn

    async def _add_up(self, question: _Question) -> list[UsageTotals]:
        account_id, grouping, period, after, limit = question
        async with self._turn(account_id), self._room, acquire(self._pool) as connection:
            began_s = time.monotonic()
            try:
                rows = await connection.fetch(
                    _TOTAL_USAGE, account_id, str(grouping), *period, after, limit, timeout=MOST_S
                )
            except TimeoutError:
                raise InvalidRequest(
                    f"adding up the requests of this period takes longer than {MOST_S:.0f} s; ask "
                    "for fewer days"
                ) from None
            took_s = time.monotonic() - began_s
        totals = [
            UsageTotals(
                group=row["group_key"],
                requests=int(row["requests"]),
                prompt_tokens=int(row["prompt_tokens"]),
                completion_tokens=int(row["completion_tokens"]),
                cached_tokens=int(row["cached_tokens"]),
                reasoning_tokens=int(row["reasoning_tokens"]),
                provider_cost_picos=int(row["provider_cost_picos"]),
                charge_picos=int(row["charge_picos"]),
                own_key_cost_picos=int(row["own_key_cost_picos"]),
            )
            for row in rows
        ]
        if took_s > SLOW_S:
            self._slow[question] = took_s, totals
        return totals


def _to_periods(row: "Record") -> PeriodSums:
    return PeriodSums(
        total_picos=int(row["total_picos"]),
        day_picos=int(row["day_picos"]),
        week_picos=int(row["week_picos"]),
        month_picos=int(row["month_picos"]),
    )
