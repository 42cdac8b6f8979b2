"""Reads live holds from Postgres for administrators."""

from datetime import datetime
from typing import Final
from uuid import UUID

from meter.holds.hold import HoldState
from meter.holds.live_hold import HoldsSummary, LiveHold
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.holds")
_SUMMARISE_LIVE_HOLDS: Final = _QUERIES["summarise_live_holds"]
_LIST_LIVE_HOLDS: Final = _QUERIES["list_live_holds"]


class LiveHoldStore:
    """Counts and lists holds that have not ended. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def summarise(self) -> HoldsSummary:
        """Count the open and the unknown holds, by reason."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_SUMMARISE_LIVE_HOLDS)
        opened = [row for row in rows if row["state"] == HoldState.OPEN]
        unknown = [row for row in rows if row["state"] == HoldState.UNKNOWN]
        return HoldsSummary(
            open=sum(row["holds"] for row in opened),
            unknown=sum(row["holds"] for row in unknown),
            oldest_open_seconds=max((row["oldest_seconds"] for row in opened), default=None),
            unknown_by_reason={row["unknown_reason"] or "none": row["holds"] for row in unknown},
        )

    async def list_page(
        self, state: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[LiveHold]:
        """Return live holds, oldest first, that follow the one at `after`."""
        created_at, hold_id = after or (None, None)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_LIVE_HOLDS, state, created_at, hold_id and UUID(hold_id), limit
            )
        return [from_row(LiveHold, row, state=HoldState(row["state"])) for row in rows]
