"""Usage records in Postgres, added up."""

import asyncio
import time
from datetime import date
from typing import Final
from weakref import WeakValueDictionary

from cachetools import TLRUCache

from meter.errors import InvalidRequest, StoreUnavailable
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.usage.usage_totals import Grouping, UsageTotals

_QUERIES: Final = queries("meter.usage")
_TOTAL_USAGE: Final = _QUERIES["total_usage"]

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

    async def _add_up(self, question: _Question) -> list[UsageTotals]:
        account_id, grouping, period, after, limit = question
        turn = self._accounts.get(account_id)
        if turn is None:
            turn = self._accounts[account_id] = asyncio.Lock()
        async with turn, self._room, acquire(self._pool) as connection:
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
