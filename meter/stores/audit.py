"""The audit log in Postgres: lines are added, never changed."""

import json

from meter.audit import Actor, AuditEvent
from meter.stores.postgres import PostgresConnection, query


async def write_audit(connection: PostgresConnection, actor: Actor, event: AuditEvent) -> None:
    """Add a line, in the transaction of the change that it tells of."""
    await connection.execute(
        query("insert_audit"),
        actor.name,
        event.action,
        event.subject,
        event.account_id,
        json.dumps(event.detail),
    )
