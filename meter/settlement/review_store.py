"""Lists policy decisions and settlement conflicts from Postgres, for administrators."""

import json
from datetime import datetime
from typing import Final
from uuid import UUID

from meter.postgres.pool import PostgresPool, acquire, queries
from meter.settlement.review import PastPolicyDecision, SettlementConflict

_QUERIES: Final = queries("meter.settlement")
_LIST_POLICY_DECISIONS: Final = _QUERIES["list_policy_decisions"]
_LIST_SETTLEMENT_CONFLICTS: Final = _QUERIES["list_settlement_conflicts"]


class SettlementReviewStore:
    """Lists settlements to review. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_policy_decisions(
        self, after: tuple[datetime, str] | None, limit: int
    ) -> list[PastPolicyDecision]:
        """Return requests that a policy ended, the youngest first, after the one at `after`."""
        placed_at, hold_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_POLICY_DECISIONS, placed_at, hold_id and UUID(hold_id), limit
            )
        return [PastPolicyDecision(**dict(row)) for row in rows]

    async def list_conflicts(self, before: int | None, limit: int) -> list[SettlementConflict]:
        """Return arrivals that contradicted the books, newest first, before the id `before`."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_SETTLEMENT_CONFLICTS, before, limit)
        return [
            SettlementConflict(**{**row, "arrived": json.loads(row["arrived"])}) for row in rows
        ]
