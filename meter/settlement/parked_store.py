"""Parked endings in Postgres: those whose hold or account another transaction keeps locked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meter.postgres.pool import PostgresPool, acquire, queries
from meter.settlement.observation_json import observation_from_json
from meter.usage.usage import Observation

_QUERIES: Final = queries("meter.settlement")
_LIST_PARKED_ENDINGS: Final = _QUERIES["list_parked_endings"]
_FORGET_PARKED_ENDINGS: Final = _QUERIES["forget_parked_endings"]
_FIND_OLDEST_PARKED: Final = _QUERIES["find_oldest_parked"]

# An account with very many parked endings leaves room for the others.
MOST_OF_ONE_ACCOUNT: Final = 100
BATCH_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class ParkedEnding:
    """An observation that was stored instead of settled."""

    id: int
    observation: Observation


class ParkedEndingStore:
    """Lists and forgets parked endings. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_free(self) -> list[ParkedEnding]:
        """Return parked endings whose account is free now, BATCH_LIMIT at most."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PARKED_ENDINGS, MOST_OF_ONE_ACCOUNT, BATCH_LIMIT)
        return [ParkedEnding(row["id"], observation_from_json(row["observed"])) for row in rows]

    async def forget(self, ids: Sequence[int]) -> None:
        """Delete parked endings; those that are gone already change nothing."""
        async with acquire(self._pool) as connection:
            await connection.execute(_FORGET_PARKED_ENDINGS, list(ids))

    async def oldest_waited_s(self) -> float:
        """Return the seconds for which the oldest parked ending has waited; 0 without any."""
        async with acquire(self._pool) as connection:
            return await connection.fetchval(_FIND_OLDEST_PARKED) or 0.0
