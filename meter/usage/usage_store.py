"""Usage records in Postgres, added up."""

from datetime import datetime
from typing import Final

from meter.postgres.pool import PostgresPool, acquire, queries
from meter.usage.usage_totals import Grouping, UsageTotals

_QUERIES: Final = queries("meter.usage")
_TOTAL_USAGE: Final = _QUERIES["total_usage"]


class UsageStore:
    """Adds up usage records. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_totals(
        self,
        account_id: str,
        grouping: Grouping,
        period: tuple[datetime, datetime],
        after: str | None,
        limit: int,
    ) -> list[UsageTotals]:
        """Totals by group, in order of the group, for the period from and before two instants."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _TOTAL_USAGE, account_id, str(grouping), *period, after, limit
            )
        return [
            UsageTotals(
                group=row["group_key"],
                requests=row["requests"],
                prompt_tokens=int(row["prompt_tokens"]),
                completion_tokens=int(row["completion_tokens"]),
                cached_tokens=int(row["cached_tokens"]),
                reasoning_tokens=int(row["reasoning_tokens"]),
                provider_cost_picos=int(row["provider_cost_picos"]),
                charge_picos=int(row["charge_picos"]),
            )
            for row in rows
        ]
