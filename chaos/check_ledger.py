"""V1 and V11: postings balance, and the chain of hashes is what the entries say."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from chaos.books import Books, Posting
from chaos.stack import ChaosStack
from chaos.verdict import Findings

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_HASH: Final = hashlib.sha256(b"tollkeeper ledger").digest()
_HISTORY: Final = {
    "entries": "amount_picos = amount_picos + 1",
    "postings": "reason = 'edited'",
    "usage_records": "charge_picos = charge_picos + 1",
    "ledger_batches": "hash = previous_hash",
    "ended_holds": "state = 'released'",
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
    """Recompute every hash from the entries and the hash before."""
    by_batch: dict[int, list[Posting]] = defaultdict(list)
    for posting in books.postings:
        by_batch[posting.batch].append(posting)
    findings.require_none("V11", "broken links of the chain", _broken_links(books, by_batch))
    unknown = set(by_batch) - {batch.number for batch in books.batches}
    findings.require_none("V11", "postings of batches that are not there", unknown)


def _broken_links(books: Books, by_batch: dict[int, list[Posting]]) -> Iterator[str]:
    previous, number = _FIRST_HASH, 0
    for batch in books.batches:
        postings = sorted(by_batch[batch.number], key=lambda one: one.id.bytes)
        entries = sum(len(one.entries) for one in postings)
        signed = "".join(_lines(postings)).encode()
        is_whole = (batch.postings, batch.entries) == (len(postings), entries)
        digest = hashlib.sha256(previous + signed).digest()
        is_next = (batch.number, batch.previous_hash) == (number + 1, previous)
        if not (is_whole and is_next and batch.hash == digest):
            yield f"batch {batch.number}"
        previous, number = batch.hash, batch.number
    if books.head != (number, previous):
        yield "head"


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
