"""The queue of requests whose usage is unknown. In Postgres, so that no restart loses one."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from meter.lookups.pending import LookupsSummary, PendingLookup, ReportedGeneration
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.providers.openrouter.catalogue import PROVIDER
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.observation_json import observation_from_json

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.lookups")
_NOTE_GENERATIONS: Final = _QUERIES["note_generations"]
_CLAIM_LOOKUPS: Final = _QUERIES["claim_lookups"]
_POSTPONE_LOOKUP: Final = _QUERIES["postpone_lookup"]
_FORGET_LOOKUP: Final = _QUERIES["forget_lookup"]
_SUMMARISE_LOOKUPS: Final = _QUERIES["summarise_lookups"]

# Whoever took a look-up and died has it taken over after so long.
LEASE: Final = timedelta(seconds=30)
# A provider that reported nothing since so long before a request is not known to report at all.
REPORTS_HEARD_WITHIN: Final = timedelta(minutes=15)


async def summarise_lookups(pool: PostgresPool) -> LookupsSummary:
    """Count the look-ups that wait. Raises StoreUnavailable."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(_SUMMARISE_LOOKUPS)
    assert row is not None
    return LookupsSummary(**dict(row))


class PostgresLookups:
    """Implements `meter.ports.Lookups` and `ReportedGenerations`."""

    def __init__(self, pool: PostgresPool, terms: LookupTerms) -> None:
        self._pool = pool
        self._terms = terms

    async def note(self, reports: Sequence[ReportedGeneration]) -> int:
        """Remember which generations answered which holds; returns how many were news."""
        told = list({report.hold_id: report for report in reports}.values())
        async with acquire(self._pool) as connection:
            noted: int = await connection.fetchval(
                _NOTE_GENERATIONS,
                [report.hold_id for report in told],
                [report.generation_id for report in told],
                [report.cost_picos for report in told],
                self._terms.first_delay,
                self._terms.patience,
                PROVIDER,
            )
        return noted

    async def claim(self, limit: int) -> list[PendingLookup]:
        """Take look-ups that are due; for LEASE they are nobody else's."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _CLAIM_LOOKUPS, limit, LEASE, PROVIDER, REPORTS_HEARD_WITHIN
            )
        return [_to_pending(row) for row in rows]

    async def postpone(
        self, hold_id: UUID, delay: timedelta, is_outage: bool = False, is_decided: bool = False
    ) -> None:
        """Ask again after a delay. In an outage the time to find out grows by as much."""
        async with acquire(self._pool) as connection:
            await connection.execute(_POSTPONE_LOOKUP, hold_id, delay, is_outage, is_decided)

    async def forget(self, hold_id: UUID, generation_id: str | None) -> None:
        """End a look-up that has nothing left to find out, unless it has another id by now."""
        async with acquire(self._pool) as connection:
            await connection.execute(_FORGET_LOOKUP, hold_id, generation_id)


def _to_pending(row: "Record") -> PendingLookup:
    observed = row["observed"]
    return PendingLookup(
        hold_id=row["hold_id"],
        generation_id=row["generation_id"],
        seen=None if observed is None else observation_from_json(observed),
        attempts=row["attempts"],
        created_at=row["created_at"],
        placed_at=row["placed_at"],
        is_decided=row["is_decided"],
        is_overdue=row["is_overdue"],
        is_live=row["is_live"],
        is_settled=row["is_settled"],
        has_reports=row["has_reports"],
    )
