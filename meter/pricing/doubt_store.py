"""The doubts about a provider's listings, in Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import NotFound
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.pricing.doubts import SECOND_LOOK_AFTER, Doubt

_QUERIES: Final = queries("meter.pricing")
_JUDGE_DOUBTS: Final = _QUERIES["judge_doubts"]
_LIST_DOUBTS: Final = _QUERIES["list_doubts"]
_ACCEPT_DOUBT: Final = _QUERIES["accept_doubt"]


@dataclass(frozen=True, slots=True)
class KnownDoubt:
    """A doubt on record. `subject` is the id of a model, or empty for the whole listing."""

    id: UUID
    provider: str
    subject: str
    explanation: str
    first_seen_at: datetime
    accepted_at: datetime | None


class DoubtStore:
    """Keeps doubts, and says which of them stand. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def judge(self, provider: str, doubts: Sequence[Doubt]) -> set[str]:
        """Record the doubts about a listing; return the subjects that are not believed yet.

        An equal finding is believed when it was first seen `SECOND_LOOK_AFTER` ago, or when an
        administrator accepted it.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _JUDGE_DOUBTS,
                provider,
                [doubt.subject for doubt in doubts],
                [doubt.finding for doubt in doubts],
                [doubt.explanation for doubt in doubts],
                SECOND_LOOK_AFTER,
            )
        return {row["subject"] for row in rows}

    async def list_all(self) -> list[KnownDoubt]:
        """Return all doubts on record, in the order of their subjects."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_DOUBTS)
        return [KnownDoubt(**row) for row in rows]

    async def accept(self, doubt_id: UUID, actor: Actor) -> None:
        """Believe a finding from the next listing on. Raises NotFound where there is none."""
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_ACCEPT_DOUBT, doubt_id)
            if row is None:
                raise NotFound("there is no such doubt")
            detail = {"provider": row["provider"], "explanation": row["explanation"]}
            event = AuditEvent(
                "catalogue_doubt.accepted", row["subject"] or "listing", detail=detail
            )
            await write_audit(connection, actor, event)
