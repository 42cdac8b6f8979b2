"""A verification of the whole books keeps no snapshot for longer than a chunk takes to read."""

import asyncpg

from meter.ledger.batches import CHUNK_TIMEOUT_S
from meter.ledger.verification_store import VerificationStore
from meter.ledger.whole_books import check_books
from meter.postgres.pool import acquire
from tests.books import Books, without_protection
from tests.real.meter.ledger.test_checkpoints import run, spend
from tests.servers import Database

CHUNK_POSTINGS = 4


class Transaction(list[asyncpg.connection.LoggedQuery]):
    """The statements of one transaction, in order."""

    @property
    def reads(self) -> list[asyncpg.connection.LoggedQuery]:
        """The statements that take a snapshot."""
        return [one for one in self if one.query.startswith("--") and "LOCK TABLE" not in one.query]


async def transactions_of(books: Books) -> list[Transaction]:
    """Return the transactions of a verification of the whole books."""
    statements: list[asyncpg.connection.LoggedQuery] = []
    async with acquire(books.pool) as connection:
        with connection.query_logger(statements.append):
            assert (await check_books(connection, CHUNK_POSTINGS)).verification.is_ok
    found: list[Transaction] = []
    for statement in statements:
        if statement.query.startswith("BEGIN"):
            found.append(Transaction())
        if not statement.query.startswith("COMMIT"):
            found[-1].append(statement)
    return found


async def test_every_chunk_has_a_snapshot_of_its_own(books: Books) -> None:
    for name in ("ada", "bob", "cid"):
        await spend(books, name)
        assert (await run(books, CHUNK_POSTINGS)).failures == ()
    found = await transactions_of(books)
    limit = f"'{CHUNK_TIMEOUT_S:.0f}s'"
    for transaction in found:
        assert any(f"statement_timeout = {limit}" in one.query for one in transaction)
        if "REPEATABLE READ" in transaction[0].query:
            # What it compares has no history, and Postgres bounds all of it.
            assert any(f"transaction_timeout = {limit}" in one.query for one in transaction)
        else:
            assert len(transaction.reads) == 1
    assert sum("REPEATABLE READ" in one[0].query for one in found) == 1

    # Each chunk of the ledger has a few batches, and together they are all.
    chunks = [
        (one.args[0], one.args[1])
        for transaction in found
        for one in transaction.reads
        if one.query.startswith("-- Contradictions in the batches")
    ]
    assert [opens for opens, _ in chunks[1:]] == [closes for _, closes in chunks[:-1]]
    sizes = [
        await books.pool.fetchval(
            "SELECT coalesce(sum(postings), 0) FROM ledger_batches WHERE number > $1"
            " AND number <= $2",
            *chunk,
        )
        for chunk in chunks
    ]
    assert sum(sizes) == await books.pool.fetchval("SELECT count(*) FROM postings")
    most = await books.pool.fetchval("SELECT max(postings) FROM ledger_batches")
    assert max(sizes) < CHUNK_POSTINGS + most


async def test_sums_that_never_matched_their_rows_are_found(
    books: Books, database: Database
) -> None:
    await spend(books, "ada")
    await without_protection(
        database,
        "SELECT seal_checkpoint(0); UPDATE checkpoint_sums SET customer = customer + 1",
    )
    verified = await VerificationStore(books.pool).verify()
    assert {"balances", "chain"} <= {one.invariant for one in verified.failures}
