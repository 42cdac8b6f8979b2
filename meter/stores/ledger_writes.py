"""Appends postings with their entries, inside a transaction that the caller holds."""

from collections.abc import Sequence

from meter.ledger.postings import Posting
from meter.stores.postgres import PostgresConnection, query


async def write_postings(connection: PostgresConnection, postings: Sequence[Posting]) -> None:
    """Append postings; the caller moves the balances in the same transaction.

    Raises asyncpg.UniqueViolationError when one of them was posted before.
    """
    if not postings:
        return
    await connection.execute(
        query("insert_postings"),
        [posting.id for posting in postings],
        [posting.template.value for posting in postings],
        [posting.account_id for posting in postings],
        [posting.hold_id for posting in postings],
        [posting.reason for posting in postings],
    )
    lines = [
        (posting.id, number, entry.ledger_account.value, posting.account_id, entry.amount_picos)
        for posting in postings
        for number, entry in enumerate(posting.entries)
    ]
    await connection.execute(
        query("insert_entries"), *[list(column) for column in zip(*lines, strict=True)]
    )
