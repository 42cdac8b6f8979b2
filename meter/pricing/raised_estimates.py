"""The classes of requests whose estimates are raised, in Postgres."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import NotFound
from meter.postgres.pool import PostgresPool, acquire, queries

_QUERIES: Final = queries("meter.pricing")
_LIST_RAISED: Final = _QUERIES["list_raised"]
_CLEAR_RAISED: Final = _QUERIES["clear_raised"]


@dataclass(frozen=True, slots=True)
class RaisedEstimate:
    """A model and endpoint whose estimates are multiplied by a factor, in basis points."""

    model_id: str
    endpoint: str
    factor_bps: int
    raised_at: datetime
    last_excess_at: datetime
    excesses: int


class RaisedEstimateStore:
    """Lists and clears raised estimates. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[RaisedEstimate]:
        """Return all raised estimates, by model and endpoint."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_RAISED)
        return [RaisedEstimate(**row) for row in rows]

    async def clear(self, model_id: str, endpoint: str, actor: Actor) -> None:
        """Trust the estimates of a class again. Raises NotFound where they are not raised."""
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_CLEAR_RAISED, model_id, endpoint)
            if row is None:
                raise NotFound("the estimates of this model and endpoint are not raised")
            detail = {"endpoint": endpoint, **row}
            event = AuditEvent("raised_estimate.cleared", model_id, detail=detail)
            await write_audit(connection, actor, event)
