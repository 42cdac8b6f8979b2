"""Sinks in Postgres: their terms, their positions, and the events that they refuse."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import structlog

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, InvalidRequest, NotFound, SealBroken
from meter.exports.horizon import find_horizon
from meter.exports.sink import (
    MAX_CREDENTIAL_CHARS,
    MOST_SINKS,
    ParkedEvent,
    Sink,
    SinkKind,
    SinkState,
    SinkTerms,
)
from meter.exports.sink_delivery import Destination
from meter.exports.usage_events import UsageEvent, usage_event
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.sealing import MasterKey, SecretText, SinkContext

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.exports")
_READ_USAGE: Final = _QUERIES["read_usage"]
_TAKE_SINKS: Final = _QUERIES["take_sinks"]
_ACKNOWLEDGE: Final = _QUERIES["acknowledge"]
_GIVE_BACK_SINK: Final = _QUERIES["give_back_sink"]
_PUT_OFF_SINK: Final = _QUERIES["put_off_sink"]
_PARK_EVENT: Final = _QUERIES["park_event"]
_COUNT_PARKED: Final = _QUERIES["count_parked"]
_READ_REPLAYED: Final = _QUERIES["read_replayed"]
_DELETE_PARKED: Final = _QUERIES["delete_parked"]
_REPLAY_PARKED: Final = _QUERIES["replay_parked"]
_LIST_PARKED: Final = _QUERIES["list_parked"]
_LIST_SINKS: Final = _QUERIES["list_sinks"]
_LOCK_SINK: Final = _QUERIES["lock_sink"]
_INSERT_SINK: Final = _QUERIES["insert_sink"]
_SAVE_SINK: Final = _QUERIES["save_sink"]
_COUNT_SINKS: Final = _QUERIES["count_sinks"]
_FORGET_ACCOUNTS: Final = _QUERIES["forget_accounts"]

# Nobody else sends to a sink for so long after its worker was last heard of.
LEASE_S: Final = 120.0
MOST_RETRY_S: Final = 300.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakenSink:
    """A sink that this worker sends to, with its position."""

    to: Destination
    position: int


class SinkStore:
    """Makes, changes and lists sinks. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool, master_key: MasterKey) -> None:
        self._pool = pool
        self._master_key = master_key

    async def put(
        self,
        sink_id: str,
        terms: SinkTerms,
        credential: SecretText | None,
        from_beginning: bool,
        actor: Actor,
    ) -> bool:
        """Make a sink, or change its terms; return whether it is new.

        A new one begins with the records that come from now on, or with the oldest that is kept.
        Without a credential the stored one stays. Raises Conflict for an ended sink, another kind
        and one sink too many, InvalidRequest for a credential that no header can have.
        """
        if credential is not None:
            _require_sendable(credential)
        position = 0 if from_beginning else await find_horizon(self._pool)
        async with acquire(self._pool) as connection, connection.transaction():
            count = await connection.fetchval(_COUNT_SINKS)
            row = await connection.fetchrow(_LOCK_SINK, sink_id)
            if row is None and count >= MOST_SINKS:
                raise Conflict(f"there are {MOST_SINKS} sinks already, ended ones included")
            if row is not None and row["state"] == SinkState.ENDED:
                raise Conflict("the sink was ended; make one with another id")
            if row is not None and row["kind"] != terms.kind:
                raise Conflict("the kind of a sink does not change; make one with another id")
            version = 0 if row is None else row["key_version"]
            sealed = None if row is None else row["sealed"]
            if credential is not None:
                version += 1
                sealed = self._master_key.seal(credential, SinkContext(sink_id, version))
            if row is None:
                await connection.execute(
                    _INSERT_SINK,
                    sink_id,
                    terms.kind.value,
                    terms.url,
                    terms.event_code,
                    terms.source,
                    terms.plan_code,
                    sealed,
                    version,
                    position,
                )
            else:
                if (row["url"], row["plan_code"]) != (terms.url, terms.plan_code):
                    await connection.execute(_FORGET_ACCOUNTS, sink_id)
                await self._save(connection, sink_id, terms, sealed, version, row["state"])
            detail = {"kind": terms.kind.value, "url": terms.url, "key_version": version}
            await _audit(
                connection,
                actor,
                "sink.created" if row is None else "sink.changed",
                sink_id,
                detail,
            )
        return row is None

    async def set_state(self, sink_id: str, state: SinkState, actor: Actor) -> Sink:
        """Pause, resume or end a sink; the credential of an ended one is deleted.

        Raises NotFound, and Conflict for a sink that was ended.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK_SINK, sink_id)
            if row is None:
                raise _not_found(sink_id)
            if row["state"] == SinkState.ENDED and state is not SinkState.ENDED:
                raise Conflict("the sink was ended; make one with another id")
            sealed = None if state is SinkState.ENDED else row["sealed"]
            version = row["key_version"]
            await self._save(connection, sink_id, _terms(row), sealed, version, state)
            if row["state"] != state:
                action = {"active": "resumed", "paused": "paused", "ended": "ended"}[state.value]
                await _audit(connection, actor, f"sink.{action}", sink_id, {})
        return await self.get(sink_id)

    async def list_all(self) -> list[Sink]:
        """Return all sinks by id."""
        async with acquire(self._pool) as connection:
            return [_sink(row) for row in await connection.fetch(_LIST_SINKS, None)]

    async def get(self, sink_id: str) -> Sink:
        """Return a sink. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_LIST_SINKS, sink_id)
        if row is None:
            raise _not_found(sink_id)
        return _sink(row)

    async def destination(self, sink_id: str) -> Destination:
        """Return where a sink is, with its opened credential. Raises NotFound and SealBroken."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_LIST_SINKS, sink_id)
        if row is None:
            raise _not_found(sink_id)
        return self._open(row)

    async def list_parked(self, sink_id: str, after: int | None, limit: int) -> list[ParkedEvent]:
        """Return the events that a sink refuses, in order, after a position."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PARKED, sink_id, after or 0, limit)
        return [from_row(ParkedEvent, row) for row in rows]

    async def replay(self, sink_id: str, position: int | None, actor: Actor) -> int:
        """Have a parked event sent again, or all of them; return how many. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchrow(_LOCK_SINK, sink_id) is None:
                raise _not_found(sink_id)
            replayed: int = await connection.fetchval(_REPLAY_PARKED, sink_id, position)
            if position is not None and not replayed:
                raise NotFound("no event with this position is parked")
            await _audit(connection, actor, "sink.replayed", sink_id, {"events": replayed})
        return replayed

    async def discard(self, sink_id: str, position: int, actor: Actor) -> None:
        """Forget a parked event: the sink never gets it. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            if not await connection.fetchval(_DELETE_PARKED, sink_id, [position]):
                raise NotFound("no event with this position is parked")
            await _audit(connection, actor, "sink.discarded", sink_id, {"position": position})

    # The rest is for the worker.

    async def take(self, worker: UUID) -> list[TakenSink]:
        """Take the sinks that have something to send and that nobody else sends to.

        A sink whose credential cannot be opened is put off.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_TAKE_SINKS, worker, LEASE_S)
        taken = []
        for row in rows:
            try:
                taken.append(TakenSink(self._open(row), row["position"]))
            except SealBroken as error:
                _log.error("sink_credential_sealed", sink_id=row["id"], reason=str(error))
                await self.put_off(row["id"], worker, str(error))
        return taken

    async def read(self, to: Destination, after: int, up_to: int) -> list[UsageEvent]:
        """Return the events after a position, up to another, in order."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_READ_USAGE, after, up_to)
        return [usage_event(dict(row), to.terms) for row in rows]

    async def read_replayed(self, sink_id: str, limit: int) -> list[UsageEvent]:
        """Return parked events that are to be sent again, in order."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_READ_REPLAYED, sink_id, limit)
        return [UsageEvent(row["seq"], row["account_id"], row["event"]) for row in rows]

    async def acknowledge(
        self,
        sink_id: str,
        worker: UUID,
        position: int,
        sent: int,
        oldest_at: datetime | None,
        replayed: Sequence[int] = (),
    ) -> bool:
        """Note that a sink took all up to a position; return whether it is still this worker's.

        `oldest_at` is about when what it did not take was recorded, None where it took all.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(
                _ACKNOWLEDGE, sink_id, worker, position, sent, LEASE_S, oldest_at
            )
            if row is not None and replayed:
                await connection.fetchval(_DELETE_PARKED, sink_id, list(replayed))
        return row is not None

    async def park(
        self, sink_id: str, worker: UUID, position: int, event: UsageEvent, error: str
    ) -> bool:
        """Keep an event that a sink refuses, and go on after it, as `acknowledge` does."""
        async with acquire(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(
                _ACKNOWLEDGE, sink_id, worker, position, 0, LEASE_S, event.recorded_at
            )
            if row is not None:
                await connection.execute(
                    _PARK_EVENT, sink_id, event.position, event.account_id, event.text, error
                )
        return row is not None

    async def count_parked(self, sink_id: str) -> int:
        """Return the number of events that a sink refuses."""
        async with acquire(self._pool) as connection:
            parked: int = await connection.fetchval(_COUNT_PARKED, sink_id)
        return parked

    async def give_back(self, sink_id: str, worker: UUID) -> None:
        """Let others send to a sink."""
        async with acquire(self._pool) as connection:
            await connection.execute(_GIVE_BACK_SINK, sink_id, worker)

    async def put_off(
        self, sink_id: str, worker: UUID, error: str, oldest_at: datetime | None = None
    ) -> None:
        """Note why a sink took nothing. The next attempt is 1 s later, then doubling."""
        async with acquire(self._pool) as connection:
            await connection.execute(
                _PUT_OFF_SINK, sink_id, worker, error[:500] or "?", MOST_RETRY_S, oldest_at
            )

    async def _save(
        self,
        connection: PostgresConnection,
        sink_id: str,
        terms: SinkTerms,
        sealed: bytes | None,
        version: int,
        state: str,
    ) -> None:
        await connection.execute(
            _SAVE_SINK,
            sink_id,
            terms.url,
            terms.event_code,
            terms.source,
            terms.plan_code,
            sealed,
            version,
            state,
        )

    def _open(self, row: "Record") -> Destination:
        credential = None
        if row["sealed"] is not None:
            context = SinkContext(row["id"], row["key_version"])
            credential = self._master_key.open(row["sealed"], context)
        return Destination(row["id"], _terms(row), credential)


def _require_sendable(credential: SecretText) -> None:
    text = credential.reveal()
    if not 1 <= len(text) <= MAX_CREDENTIAL_CHARS or not all("!" <= char <= "~" for char in text):
        raise InvalidRequest(
            f"a credential is 1 to {MAX_CREDENTIAL_CHARS} visible ASCII characters"
        )


async def _audit(
    connection: PostgresConnection, actor: Actor, action: str, sink_id: str, detail: dict[str, Any]
) -> None:
    await write_audit(connection, actor, AuditEvent(action, f"sink:{sink_id}", None, detail))


def _not_found(sink_id: str) -> NotFound:
    return NotFound(f"there is no sink '{sink_id}'")


def _terms(row: "Record") -> SinkTerms:
    kind = SinkKind(row["kind"])
    return SinkTerms(kind, row["url"], row["event_code"], row["source"], row["plan_code"])


def _sink(row: "Record") -> Sink:
    return from_row(
        Sink,
        row,
        terms=_terms(row),
        state=SinkState(row["state"]),
        has_credential=row["sealed"] is not None,
    )
