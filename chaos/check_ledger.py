"""V1 and V11: postings balance, and the chain of hashes is what the entries say."""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from chaos.books import Batch, Books, Posting, Settlement
from chaos.stack import ChaosStack
from chaos.verdict import Findings

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Y2000: Final = datetime(2000, 1, 1, tzinfo=UTC)
# The ids of types in the catalogue of every Postgres, and the binary form of their values.
_TYPES: Final = {"uuid": 2950, "timestamptz": 1184, "int8": 20, "int4": 23, "bool": 16, "text": 25}
_BINARY: Final[dict[str, Callable[[Any], bytes]]] = {
    "uuid": lambda value: value.bytes,
    "timestamptz": lambda value: struct.pack("!q", (value - _Y2000) // timedelta(microseconds=1)),
    "int8": lambda value: struct.pack("!q", value),
    "int4": lambda value: struct.pack("!i", value),
    "bool": lambda value: struct.pack("!?", value),
    "text": lambda value: value.encode(),
}
_HISTORY: Final = {
    "settlements": "provider_picos = provider_picos + 1",
    "kept_settlements": "provider_picos = provider_picos + 1",
    "entry_rows": "amount_picos = amount_picos + 1",
    "posting_rows": "reason = 'edited'",
    "usage_rows": "charge_picos = charge_picos + 1",
    "ledger_batches": "hash = previous_hash",
    "ended_hold_rows": "state = 'released'",
}


def check_postings(books: Books, findings: Findings) -> None:
    """Every posting sums to zero, has entries, and stands once."""
    unbalanced = [one.id for one in books.postings if sum(e.amount_picos for e in one.entries)]
    findings.require_none("V1", "postings that do not sum to zero", unbalanced)
    empty = [one.id for one in books.postings if not one.entries]
    findings.require_none("V1", "postings without entries", empty)
    seen: set[UUID] = set()
    twice = [one.id for one in books.postings if one.id in seen or seen.add(one.id)]  # type: ignore[func-returns-value]  # add() says nothing
    findings.require_none("V3", "postings that stand twice", twice)
    strays = ["entries"] * bool(books.stray_entries)
    findings.require_none("V1", f"{books.stray_entries} entries without a posting", strays)


def check_chain(books: Books, findings: Findings) -> None:
    """Recompute every hash from the rows and the hash before."""
    ordinary = {one.id for one in books.settlements}
    postings: dict[int, list[Posting]] = defaultdict(list)
    for posting in books.postings:
        postings[posting.batch].append(posting)
    settlements: dict[int, list[Settlement]] = defaultdict(list)
    for settlement in books.settlements:
        settlements[settlement.batch].append(settlement)

    def signed(batch: Batch) -> bytes:
        records = sorted(settlements[batch.number], key=lambda one: one.id.bytes)
        apart = sorted(postings[batch.number], key=lambda one: one.id.bytes)
        lines = _lines([one for one in apart if one.id not in ordinary])
        return b"".join(map(_record, records)) + "".join(lines).encode()

    def is_whole(batch: Batch) -> bool:
        found = postings[batch.number]
        entries = sum(len(one.entries) for one in found)
        return (batch.postings, batch.entries) == (len(found), entries)

    ends: dict[int, tuple[int, bytes]] = {chain: (0, _first_hash(chain)) for chain in books.heads}
    broken = []
    for batch in books.batches:
        position, previous = ends.get(batch.chain, (0, b""))
        digest = hashlib.sha256(previous + signed(batch)).digest()
        is_next = (batch.position, batch.previous_hash) == (position + 1, previous)
        if not (is_whole(batch) and is_next and batch.hash == digest):
            broken.append(f"batch {batch.number}")
        ends[batch.chain] = (batch.position, batch.hash)
    broken += [f"head of chain {chain}" for chain in ends if books.heads.get(chain) != ends[chain]]
    findings.require_none("V11", "broken links of the chains", broken)
    unknown = set(postings) - {batch.number for batch in books.batches}
    findings.require_none("V11", "postings of batches that are not there", unknown)


def _first_hash(chain: int) -> bytes:
    suffix = "" if chain == 1 else f" {chain}"
    return hashlib.sha256(f"tollkeeper ledger{suffix}".encode()).digest()


def _record(settlement: Settlement) -> bytes:
    """Return the values as Postgres sends a row: their number, then type, length and bytes."""
    parts = [struct.pack("!i", len(settlement.values))]
    for kind, value in settlement.values:
        if value is None:
            parts.append(struct.pack("!Ii", _TYPES[kind], -1))
        else:
            data = _BINARY[kind](value)
            parts.append(struct.pack("!Ii", _TYPES[kind], len(data)) + data)
    return b"".join(parts)


def _lines(postings: list[Posting]) -> Iterator[str]:
    """Each entry as migration 0002 says that it is signed."""
    for one in postings:
        reason = "-" if one.reason is None else f"{len(one.reason)}:{one.reason}"
        for entry in one.entries:
            parts = (
                one.id,
                _micros(one.booked_at),
                one.template,
                one.account_id,
                one.hold_id or "",
                _micros(one.recorded_at),
                entry.line,
                entry.ledger_account,
                entry.account_id,
                entry.amount_picos,
                reason,
            )
            yield "|".join(map(str, parts)) + "\n"


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


async def check_immutable(stack: ChaosStack, findings: Findings) -> None:
    """The service's role can neither change history nor take it away."""
    connection = await asyncpg.connect(stack.service_dsn)
    try:
        for table, change in _HISTORY.items():
            for statement in (f"UPDATE {table} SET {change}", f"DELETE FROM {table}"):
                await _check_refused(connection, statement, findings)
    finally:
        await connection.close()


async def _check_refused(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str, findings: Findings
) -> None:
    attempt = connection.transaction()
    await attempt.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return
    finally:
        await attempt.rollback()
    findings.require_none("V11", "history that the service may change", [statement])
