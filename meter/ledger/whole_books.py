"""Verifies the whole books: every row, in chunks, each a statement of its own.

No snapshot outlives a statement, and no statement CHUNK_TIMEOUT_S, so that nothing else in Postgres
waits for a verification however long the history is. What is read never changes (V11), so the order
of reading does not matter:

1. batches of the ledger, from the first to the youngest checkpoint, with the hashes of their rows,
   the links of the chains, and the sums by account, which the checkpoint must have sealed;
2. requests that were more than an ordinary settlement, by the day on which their hold was placed;
3. entries, by their posting; months of which totals are sealed;
4. accounts, holds, payments and lots, with what is younger than the checkpoint.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from meter.errors import StoreUnavailable
from meter.ledger.batches import CHUNK_POSTINGS, CHUNK_TIMEOUT_S
from meter.ledger.checkpoints import (
    compare,
    find_broken_checkpoint,
    get_last_batch,
    snapshot,
)
from meter.ledger.verification import (
    BookTotals,
    ChainHead,
    DroppedMonth,
    Verification,
    failures_from,
)
from meter.postgres.pool import PostgresConnection, queries

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.ledger")
_BEGIN_CHAINS: Final = _QUERIES["begin_chains"]
_FIND_CHECKPOINT_AFTER: Final = _QUERIES["find_checkpoint_after"]
_NEXT_CHUNK: Final = _QUERIES["next_chunk"]
_VERIFY_CHUNK: Final = _QUERIES["verify_chunk"]
_ADD_UP_CHUNK: Final = _QUERIES["add_up_chunk"]
_ADD_UP_SEALED: Final = _QUERIES["add_up_sealed"]
_END_CHUNK: Final = _QUERIES["end_chunk"]
_COMPARE_SUMS: Final = _QUERIES["compare_sums"]
_LIST_MONTHS_OF_ROWS: Final = _QUERIES["list_months_of_rows"]
_COUNT_DAYS: Final = _QUERIES["count_days"]
_VERIFY_REQUESTS: Final = _QUERIES["verify_requests"]
_COUNT_REQUESTS: Final = _QUERIES["count_requests"]
_FIND_ENTRIES_AFTER: Final = _QUERIES["find_entries_after"]
_VERIFY_ENTRIES: Final = _QUERIES["verify_entries"]
_LIST_SEALED_MONTHS: Final = _QUERIES["list_sealed_months"]
_VERIFY_SEALED: Final = _QUERIES["verify_sealed"]
_VERIFY_LIVE: Final = _QUERIES["verify_live"]
_VERIFY_TOTALS: Final = _QUERIES["verify_totals"]
_FIND_HEAD: Final = _QUERIES["find_head"]
_LIST_DROPPED_MONTHS: Final = _QUERIES["list_dropped_months"]

# Sessions are set for short statements that find rows by key. Reading whole months by key would
# never end.
_CHUNK: Final = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;"
    " SET LOCAL enable_mergejoin = on; SET LOCAL plan_cache_mode = force_custom_plan;"
    f" SET LOCAL jit = off; SET LOCAL statement_timeout = '{CHUNK_TIMEOUT_S:.0f}s'"
)
SUMS: Final = (
    *("customer", "charged", "credited", "cost", "over"),
    *("used_charge", "used_cost"),
)
# Rows with any number of a batch are read, and with any time.
_FIRST_BATCH: Final = -(2**63)
_LAST_BATCH: Final = 2**63 - 1
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)
_LAST_POSTING: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class CheckedBooks:
    """The outcome of a verification, and the sums by account of the rows up to `last_batch`.

    `sums` has a list for each of SUMS behind the list of accounts.
    """

    verification: Verification
    last_batch: int
    sums: tuple[list[Any], ...]


async def check_books(
    connection: PostgresConnection, chunk_postings: int = CHUNK_POSTINGS
) -> CheckedBooks:
    """Check every invariant. The caller has sealed what came since the youngest checkpoint, or
    knows why it cannot be, and is in no transaction.

    Raises StoreUnavailable when a chunk takes too long, or a month is dropped meanwhile: sums of
    what was read before would count twice.
    """
    reading = Reading(connection, chunk_postings)
    dropped = await reading.fetch(_LIST_DROPPED_MONTHS)
    await reading.read_ledger()
    await reading.read_requests()
    await reading.read_entries()
    for row in await reading.fetch(_LIST_SEALED_MONTHS):
        await reading.look_for_failures(_VERIFY_SEALED, row["month"])
    await reading.look_for_failures(_VERIFY_LIVE)
    async with snapshot(connection):
        reading.found.update(await find_broken_checkpoint(connection))
        reading.found.update(await compare(connection, await get_last_batch(connection)))
    (totals,) = await reading.fetch(_VERIFY_TOTALS)
    heads = await reading.fetch(_FIND_HEAD)
    if await reading.fetch(_LIST_DROPPED_MONTHS) != dropped:
        raise StoreUnavailable("a month was dropped meanwhile; verify again")
    verification = Verification(
        failures=failures_from(reading.found),
        totals=reading.totals(totals),
        head=ChainHead(heads[0]["number"], heads[0]["hash"]) if heads else None,
        dropped_months=tuple(DroppedMonth(**dict(row)) for row in dropped),
    )
    return CheckedBooks(verification, reading.sealed_batch, reading.sums(*SUMS))


@dataclass(slots=True)
class Reading:
    """One verification: the contradictions and sums of what was read so far."""

    connection: PostgresConnection
    chunk_postings: int
    found: set[tuple[str, str]] = field(default_factory=set)
    # The sums of each account up to the youngest checkpoint, in the order of SUMS.
    accounts: defaultdict[str, list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0] * len(SUMS))
    )
    counted: Counter[str] = field(default_factory=Counter)
    sealed_batch: int = 0
    # The batch that was read last, and where the chains were after it.
    batch: int = 0
    positions: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    async def fetch(self, query: str, *arguments: Any) -> "list[Record]":
        """Return the rows of one statement, which has a snapshot of its own."""
        async with self.connection.transaction():
            await self.connection.execute(_CHUNK)
            return await self.connection.fetch(query, *arguments, timeout=CHUNK_TIMEOUT_S)

    async def look_for_failures(self, query: str, *arguments: Any) -> None:
        """Note what a query finds to be broken."""
        rows = await self.fetch(query, *arguments)
        self.found.update((row["invariant"], row["id"]) for row in rows)

    async def read_ledger(self) -> None:
        """Verify all batches, and compare their sums with those of the youngest checkpoint."""
        (chains,) = await self.fetch(_BEGIN_CHAINS)
        self.positions, self.hashes = chains["positions"], chains["hashes"]
        self._add(await self.fetch(_ADD_UP_SEALED))
        number, digest = 0, None
        while rows := await self.fetch(_FIND_CHECKPOINT_AFTER, number, digest):
            (checkpoint,) = rows
            number, digest = checkpoint["number"], checkpoint["hash"]
            await self._read_batches(checkpoint["last_batch"])
            seen = (checkpoint["positions"], checkpoint["hashes"])
            if not checkpoint["is_next"] or seen != (self.positions, self.hashes):
                self.found.add(("chain", f"checkpoint {number}"))
            # Compares with the youngest checkpoint only: sums of the others are not kept.
            sums = self.sums("customer", "over")
            await self.look_for_failures(_COMPARE_SUMS, number, *sums)
        self.sealed_batch = self.batch
        # Only sealed batches can lack rows, with their month. No statement sees them change.
        if self.counted["entries"] != self.counted["signed_entries"]:
            self.found.add(("chain", "entries"))
        # What came since, and rows that claim a batch which no checkpoint will ever reach.
        self._count(await self._read_chunk(_LAST_BATCH))

    async def _read_batches(self, last_batch: int) -> None:
        while self.batch < last_batch:
            (chunk,) = await self.fetch(_NEXT_CHUNK, self.batch, last_batch, self.chunk_postings)
            self._add(await self._read_chunk(chunk["up_to"] or last_batch))

    async def _read_chunk(self, up_to: int) -> "list[Record]":
        """Verify the next batches; return their sums by account."""
        chunk = self.batch or _FIRST_BATCH, up_to
        chains = self.positions, self.hashes
        await self.look_for_failures(_VERIFY_CHUNK, *chunk, *chains)
        sums = await self.fetch(_ADD_UP_CHUNK, *chunk)
        (ends,) = await self.fetch(_END_CHUNK, *chunk, *chains)
        self.batch, self.positions, self.hashes = up_to, ends["positions"], ends["hashes"]
        self.counted["signed_entries"] += ends["entries"]
        return sums

    def _add(self, rows: "list[Record]") -> None:
        """Add rows of sums to those of their accounts, and count them."""
        for row in rows:
            sums = self.accounts[row["account_id"]]
            for number, name in enumerate(SUMS):
                sums[number] += int(row.get(name, 0))
        self._count(rows)

    def _count(self, rows: "list[Record]") -> None:
        for row in rows:
            for name, amount in row.items():
                if name != "account_id":
                    self.counted[name] += int(amount)

    def sums(self, *names: str) -> tuple[list[Any], ...]:
        """Return the accounts, and the sums of each by name, as columns."""
        rows = self.accounts.values()
        columns = ([row[number] for row in rows] for number in map(SUMS.index, names))
        return (list(self.accounts), *columns)

    async def read_requests(self) -> None:
        """Verify requests that were more than an ordinary settlement."""
        async for opens, closes in self._periods():
            await self.look_for_failures(_VERIFY_REQUESTS, opens, closes)
            self._add(await self.fetch(_COUNT_REQUESTS, opens, closes))

    async def _periods(self) -> AsyncIterator[tuple[datetime, datetime]]:
        """Yield periods of whole days that cover all time, and have a chunk of rows each."""
        months = [row["opens"] for row in await self.fetch(_LIST_MONTHS_OF_ROWS)]
        for opens, closes in pairwise([_EARLIEST, *months, _LATEST]):
            begins, rows = opens, 0
            for row in await self.fetch(_COUNT_DAYS, opens, closes):
                if rows and rows + row["rows"] > self.chunk_postings:
                    yield begins, row["day"]
                    begins, rows = row["day"], 0
                rows += row["rows"]
            if rows:
                yield begins, closes

    async def read_entries(self) -> None:
        """Verify that entries have their postings, and sum to zero."""
        after = UUID(int=0)
        while after != _LAST_POSTING:
            rows = await self.fetch(_FIND_ENTRIES_AFTER, after, self.chunk_postings)
            up_to = rows[0]["posting_id"] if rows else _LAST_POSTING
            await self.look_for_failures(_VERIFY_ENTRIES, after, up_to)
            after = up_to

    def totals(self, row: "Record") -> BookTotals:
        """Return the totals, with those that history does not have."""
        counted = self.counted
        return BookTotals(
            postings=counted["postings"],
            entries=counted["entries"],
            accounts=row["accounts"],
            holds=counted["holds"] + counted["requests"] + row["open_holds"] + row["unknown_holds"],
            usage_records=counted["usage_records"] + counted["requests"],
            settlement_conflicts=row["settlement_conflicts"],
            provisional_records=counted["provisional_records"],
            batches=row["batches"],
            open_holds=row["open_holds"],
            unknown_holds=row["unknown_holds"],
            stale_open_holds=row["stale_open_holds"],
            provider_cost_picos=counted["cost"],
            charge_picos=counted["cost"] + counted["revenue"],
            excess_picos=counted["excess"],
        )
