"""The queue of requests whose usage is unknown; in Postgres, so that no restart loses one."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from meter.lookups.pending import LookupsSummary, PendingLookup, ReportedGeneration
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.observation_json import observation_from_json

_QUERIES: Final = queries("meter.lookups")
_NOTE_GENERATIONS: Final = _QUERIES["note_generations"]
_CLAIM_LOOKUPS: Final = _QUERIES["claim_lookups"]
_POSTPONE_LOOKUP: Final = _QUERIES["postpone_lookup"]
_FORGET_LOOKUP: Final = _QUERIES["forget_lookup"]
_SUMMARISE_LOOKUPS: Final = _QUERIES["summarise_lookups"]

# A look-up that a meter took and did not finish, because it died, is taken over after this time.
LEASE: Final = timedelta(seconds=30)
# A missing report counts as evidence only where the provider has reported something since this
# long before the request.
REPORTS_HEARD_WITHIN: Final = timedelta(minutes=15)


async def summarise_lookups(pool: PostgresPool) -> LookupsSummary:
    """Return counts of the waiting look-ups. Raises StoreUnavailable."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(_SUMMARISE_LOOKUPS)
    assert row is not None
    return LookupsSummary(**dict(row))


class LookupQueue:
    """Keeps the look-ups in Postgres, so that several meters share them.

    All methods raise StoreUnavailable during an outage.
    """

    def __init__(self, pool: PostgresPool, terms: LookupTerms, provider_id: str) -> None:
        self._pool = pool
        self._terms = terms
        self._provider_id = provider_id

    async def note(self, reports: Sequence[ReportedGeneration]) -> int:
        """Remember which generations answered which holds; return how many reports were new.

        A report of a hold that is not in the books, or that was settled at the reported cost, is
        ignored. A report only says where to look, and never settles. Idempotent, because
        providers send reports more than once.
        """
        latest = list({report.hold_id: report for report in reports}.values())
        async with acquire(self._pool) as connection:
            noted: int = await connection.fetchval(
                _NOTE_GENERATIONS,
                [report.hold_id for report in latest],
                [report.generation_id for report in latest],
                [report.cost_picos for report in latest],
                self._terms.first_delay,
                self._terms.patience,
                self._provider_id,
            )
        return noted

    async def claim(self, limit: int) -> list[PendingLookup]:
        """Take look-ups that are due; no other meter takes the same ones during LEASE."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _CLAIM_LOOKUPS, limit, LEASE, self._provider_id, REPORTS_HEARD_WITHIN
            )
        return [
            PendingLookup(
                hold_id=row["hold_id"],
                generation_id=row["generation_id"],
                seen=None if row["observed"] is None else observation_from_json(row["observed"]),
                attempts=row["attempts"],
                created_at=row["created_at"],
                placed_at=row["placed_at"],
                is_decided=row["is_decided"],
                is_overdue=row["is_overdue"],
                is_live=row["is_live"],
                is_settled=row["is_settled"],
                has_reports=row["has_reports"],
            )
            for row in rows
        ]

    async def postpone(
        self, hold_id: UUID, delay: timedelta, is_outage: bool = False, is_decided: bool = False
    ) -> None:
        """Make a look-up due again after a delay.

        With `is_outage` its deadline moves by the same delay, so that an outage of the provider
        takes nothing from the time for the look-up.
        """
        async with acquire(self._pool) as connection:
            await connection.execute(_POSTPONE_LOOKUP, hold_id, delay, is_outage, is_decided)

    async def forget(self, hold_id: UUID, generation_id: str | None) -> None:
        """Delete a look-up that is done, unless a report gave it another generation meanwhile."""
        async with acquire(self._pool) as connection:
            await connection.execute(_FORGET_LOOKUP, hold_id, generation_id)
