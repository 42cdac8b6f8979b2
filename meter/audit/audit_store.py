"""The audit log in Postgres: lines are added, never changed."""

import json
from dataclasses import dataclass
from typing import Final

import asyncpg

from meter.audit.events import Actor, AuditEvent, AuditLine
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.audit")
_INSERT_AUDIT: Final = _QUERIES["insert_audit"]
_LIST_AUDIT: Final = _QUERIES["list_audit"]
_LIST_OWN_AUDIT: Final = _QUERIES["list_own_audit"]


async def write_audit(connection: PostgresConnection, actor: Actor, event: AuditEvent) -> None:
    """Add a line, in the transaction of the change that it records, and count it for its author."""
    await connection.execute(
        _INSERT_AUDIT,
        actor.name,
        event.action,
        event.subject,
        event.account_id,
        json.dumps(event.detail),
        actor.account_id,
    )


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """A filter on lines: by account, by the beginning of the action, by actor. None means any."""

    account_id: str | None = None
    action: str | None = None
    actor: str | None = None


class AuditStore:
    """Reads the audit log. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_page(
        self, wanted: AuditFilter, before: int | None, limit: int
    ) -> list[AuditLine]:
        """Return lines, newest first, older than the one with the id `before`."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(
                _LIST_AUDIT, wanted.account_id, wanted.action, wanted.actor, before, limit
            )
        return [_line(row) for row in rows]

    async def list_own(
        self, account_id: str, action: str | None, before: int | None, limit: int
    ) -> list[AuditLine]:
        """Return the lines about keys, passes, provider keys and credit, which the account may see.

        The actor reads `administrator` where it was not the account itself.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_OWN_AUDIT, account_id, action, before, limit)
        return [_line(row) for row in rows]

    async def add(self, actor: Actor, event: AuditEvent) -> None:
        """Add a line in a transaction of its own, for an event that changes no table."""
        async with acquire(self._pool) as connection:
            await write_audit(connection, actor, event)


def _line(row: asyncpg.Record) -> AuditLine:
    return from_row(AuditLine, row, detail=json.loads(row["detail"]))
