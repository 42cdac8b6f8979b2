"""Finds one settled request of an account by an id that its client was given."""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID
from weakref import WeakValueDictionary

from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.usage.generation import Generation, search_periods
from meter.usage.usage import TokenCounts

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.usage")
_FIND_GENERATION: Final = _QUERIES["find_generation"]
_LIST_GENERATION_RECORDS: Final = _QUERIES["list_generation_records"]

# Records of each kind that one search reads at most: what an account sends in 20 s at 1,000 a
# second, or in a day at one every four seconds.
MOST_RECORDS: Final = 20_000
# Connections that searches take at most; one account has one of them.
MOST_AT_ONCE: Final = 2
MOST_WAITING: Final = 64
MOST_S: Final = 5.0


class GenerationStore:
    """Finds settled requests. Raises StoreUnavailable in an outage, and when too many wait."""

    def __init__(self, pool: PostgresPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting = 0

    async def find(self, account_id: str, asked_id: str) -> Generation | None:
        """Return the account's request with this id, None where none is settled.

        The id is the provider's of the generation, or that of the header x-request-id. A search
        ends after MOST_RECORDS records and MOST_S.
        """
        if self._waiting >= MOST_WAITING:
            raise StoreUnavailable("too many searches for generations wait")
        turn = self._turns.get(account_id)
        if turn is None:
            turn = self._turns[account_id] = asyncio.Lock()
        self._waiting += 1
        try:
            async with turn, self._room:
                return await self._search(account_id, asked_id)
        finally:
            self._waiting -= 1

    async def _search(self, account_id: str, asked_id: str) -> Generation | None:
        request_id = _read_uuid(asked_id)
        async with acquire(self._pool) as connection:
            for period in search_periods(asked_id, self._clock.now()):
                found = await connection.fetchrow(
                    _FIND_GENERATION,
                    account_id,
                    asked_id,
                    request_id,
                    *period,
                    MOST_RECORDS,
                    timeout=MOST_S,
                )
                if found is not None:
                    records = await connection.fetch(_LIST_GENERATION_RECORDS, *found)
                    return _to_generation(records)
        return None


def _read_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _to_generation(records: "list[Record]") -> Generation:
    """Add up the records of a request: each later one carries the differences of a correction."""
    first, last = records[0], records[-1]
    named = [row["generation_id"] for row in records if row["generation_id"] is not None]
    own = [cost for row in records if (cost := row["own_key_cost_picos"]) is not None]
    started_at: datetime = first["started_at"]

    def total(column: str) -> int:
        return sum(int(row[column]) for row in records)

    return Generation(
        generation_id=named[-1] if named else None,
        request_id=None if first["request_id"] is None else str(first["request_id"]),
        credential_id=first["credential_id"],
        model_id=first["model_id"],
        endpoint=first["endpoint"],
        provider=last["provider"] or "",
        started_at=started_at,
        tokens=TokenCounts(
            prompt=total("prompt_tokens"),
            completion=total("completion_tokens"),
            cached=total("cached_tokens"),
            cache_write=total("cache_write_tokens"),
            reasoning=total("reasoning_tokens"),
        ),
        provider_cost_picos=total("provider_cost_picos"),
        charge_picos=total("charge_picos"),
        own_key_cost_picos=int(sum(own)) if own else None,
        price_source=last["price_source"],
        source=last["source"],
        latency_ms=first["latency_ms"],
        time_to_first_byte_ms=first["time_to_first_byte_ms"],
        response_flags=first["response_flags"],
        is_streaming=first["is_streaming"],
    )
