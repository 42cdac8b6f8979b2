"""Lists what administrators should look at: policy decisions and conflicts."""

import json
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from meter.postgres.pool import PostgresPool, acquire, queries
from meter.settlement.review import PolicyDecision, SettlementConflict

_QUERIES: Final = queries("meter.settlement")
_LIST_POLICY_DECISIONS: Final = _QUERIES["list_policy_decisions"]
_LIST_SETTLEMENT_CONFLICTS: Final = _QUERIES["list_settlement_conflicts"]


class OversightStore:
    """Lists and counts; changes nothing. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_policy_decisions(
        self, after: tuple[datetime, str] | None, limit: int
    ) -> list[PolicyDecision]:
        """Requests that a policy ended, those placed last first, after the one at `after`."""
        placed_at, hold_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_POLICY_DECISIONS, placed_at, hold_id and UUID(hold_id), limit
            )
        return [PolicyDecision(**dict(row)) for row in rows]

    async def list_conflicts(self, before: int | None, limit: int) -> list[SettlementConflict]:
        """Arrivals that contradicted the books, newest first, before the one with this id."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_SETTLEMENT_CONFLICTS, before, limit)
        return [_conflict(row) for row in rows]


def _conflict(row: asyncpg.Record) -> SettlementConflict:
    return SettlementConflict(**{**row, "arrived": json.loads(row["arrived"])})
