"""Appends postings with their entries, inside a transaction that the caller holds."""

from collections.abc import Sequence
from typing import Final

from meter.ledger.postings import Posting
from meter.postgres.pool import PostgresConnection, queries

_QUERIES: Final = queries("meter.ledger")
_APPEND_POSTINGS: Final = _QUERIES["append_postings"]


async def write_postings(connection: PostgresConnection, postings: Sequence[Posting]) -> int | None:
    """Append postings as one batch; return its number, None without postings.

    Nobody else has the chain of the batch until the commit.

    The caller has moved the balances in the same transaction: accounts are locked before a chain.
    Raises asyncpg.UniqueViolationError when one of them was posted before.
    """
    if not postings:
        return None
    lines = [
        (position, number, entry.ledger_account.value, entry.amount_picos)
        for position, posting in enumerate(postings, start=1)
        for number, entry in enumerate(posting.entries)
    ]
    number: int = await connection.fetchval(
        _APPEND_POSTINGS,
        [posting.id for posting in postings],
        [posting.booked_at for posting in postings],
        [posting.template.value for posting in postings],
        [posting.account_id for posting in postings],
        [posting.hold_id for posting in postings],
        [posting.reason for posting in postings],
        *[list(column) for column in zip(*lines, strict=True)],
    )
    return number
