"""The contents of Postgres, read at one instant with statements of our own."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from chaos.stack import ChaosStack
from chaos.upstream import DEFAULT_PROVIDER

CONNECT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """Money of one customer, in pico-dollars."""

    id: str
    balance_picos: int
    held_picos: int
    overdrawn_picos: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold, live or ended; `ending` is the reason it ended for."""

    id: UUID
    account_id: str
    amount_picos: int
    markup_bps: int
    request_id: UUID | None
    state: str
    ending: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """One usage record; of a later revision, the differences.

    With an own key of its account, `cost_picos` is what the account paid the provider; we owe
    nothing then.
    """

    hold_id: UUID
    revision: int
    kind: str
    source: str
    account_id: str
    generation_id: str | None
    cost_picos: int
    charge_picos: int
    excess_picos: int
    provider: str = DEFAULT_PROVIDER
    is_own_key: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One signed amount of a posting."""

    line: int
    ledger_account: str
    account_id: str
    amount_picos: int


@dataclass(frozen=True, slots=True)
class Posting:
    """One posting with its entries in the order of their lines."""

    id: UUID
    booked_at: datetime
    batch: int
    template: str
    account_id: str
    hold_id: UUID | None
    reason: str | None
    recorded_at: datetime
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """An ordinary settlement as it is signed: its values, with the name of the type of each."""

    id: UUID
    batch: int
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One link of a chain of hashes."""

    chain: int
    position: int
    number: int
    previous_hash: bytes
    hash: bytes
    postings: int
    entries: int


@dataclass(frozen=True, slots=True)
class Books:
    """All of it. `waiting_lookups` are holds that somebody still means to ask about."""

    accounts: list[Account]
    live: list[Hold]
    ended: list[Hold]
    usage: list[Usage]
    postings: list[Posting]
    stray_entries: int
    settlements: list[Settlement]
    batches: list[Batch]
    # The position and the hash of the youngest batch of each chain.
    heads: dict[int, tuple[int, bytes]]
    waiting_lookups: list[UUID]
    conflicts: int

    @property
    def holds(self) -> list[Hold]:
        """Live and ended ones."""
        return self.live + self.ended


_HOLD: Final = "id, account_id, amount_picos, markup_bps, request_id, state"
_ACCOUNTS: Final = "SELECT id, balance_picos, held_picos, overdrawn_picos FROM accounts"
_LIVE: Final = f"SELECT {_HOLD}, NULL AS ending FROM holds"
_ENDED: Final = f"SELECT {_HOLD}, reason AS ending FROM ended_holds"
_USAGE: Final = """
    SELECT u.hold_id, u.revision, u.kind, u.source, u.account_id, u.generation_id,
           coalesce(u.own_key_cost_picos, u.provider_cost_picos) AS cost_picos, u.charge_picos,
           u.excess_picos, coalesce(p.provider, 'openrouter') AS provider,
           u.own_key_cost_picos IS NOT NULL AS is_own_key
    FROM usage_records u LEFT JOIN prices p ON p.id = u.price_id ORDER BY u.hold_id, u.revision"""
_POSTINGS: Final = """
    SELECT id, booked_at, batch, template, account_id, hold_id, reason, recorded_at
    FROM postings ORDER BY batch, id"""
_ENTRIES: Final = """
    SELECT posting_id, line, ledger_account, account_id, amount_picos
    FROM entries ORDER BY posting_id, line"""
_BATCHES: Final = """
    SELECT chain, coalesce(position, number) AS position, number, previous_hash, hash, postings,
           entries
    FROM ledger_batches ORDER BY chain, position"""
# The columns that migration 0025 says are signed, in its order, with their types.
_SIGNED: Final = {
    "id": "uuid",
    "placed_at": "timestamptz",
    "seq": "int8",
    "recorded_at": "timestamptz",
    "started_at": "timestamptz",
    "request_id": "uuid",
    **dict.fromkeys(
        [
            "price_id",
            "held_picos",
            "flat_cost_picos",
            "max_tokens",
            "customer_picos",
            "provider_picos",
            "revenue_picos",
            "prompt_tokens",
            "completion_tokens",
            "cached_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        ],
        "int8",
    ),
    **dict.fromkeys(["markup_bps", "latency_ms", "time_to_first_byte_ms", "status_code"], "int4"),
    "is_streaming": "bool",
    **dict.fromkeys(
        [
            "account_id",
            "credential_id",
            "pass_id",
            "model_id",
            "endpoint",
            "generation_id",
            "response_flags",
            "price_source",
            "source",
        ],
        "text",
    ),
}
_SETTLEMENTS: Final = f"SELECT batch, {', '.join(_SIGNED)} FROM settlements"


async def read_books(stack: ChaosStack) -> Books:
    """A snapshot. Raises OSError or asyncpg's errors when Postgres does not answer."""
    connection = await asyncpg.connect(stack.dsn(), timeout=CONNECT_TIMEOUT_S)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection)
    finally:
        await connection.close()


async def _read(connection: "asyncpg.Connection[asyncpg.Record]") -> Books:
    async def rows(statement: str) -> list[dict[str, Any]]:
        return [dict(row) for row in await connection.fetch(statement)]

    postings, strays = _with_entries(await rows(_POSTINGS), await rows(_ENTRIES))
    return Books(
        accounts=[Account(**row) for row in await rows(_ACCOUNTS)],
        live=[Hold(**row) for row in await rows(_LIVE)],
        ended=[Hold(**row) for row in await rows(_ENDED)],
        usage=[Usage(**row) for row in await rows(_USAGE)],
        postings=postings,
        stray_entries=strays,
        settlements=[
            Settlement(
                row["id"], row["batch"], tuple((kind, row[name]) for name, kind in _SIGNED.items())
            )
            for row in await rows(_SETTLEMENTS)
        ],
        batches=[Batch(**row) for row in await rows(_BATCHES)],
        heads={
            row["id"]: (row["position"], row["hash"])
            for row in await rows("SELECT id, position, hash FROM ledger_chains")
        },
        waiting_lookups=[
            row["hold_id"]
            for row in await rows(
                "SELECT hold_id FROM lookups WHERE NOT is_decided"
                " OR hold_id IN (SELECT id FROM holds)"
            )
        ],
        conflicts=len(await rows("SELECT 1 FROM settlement_conflicts")),
    )


def _with_entries(
    postings: list[dict[str, Any]], entries: list[dict[str, Any]]
) -> tuple[list[Posting], int]:
    """Postings with their entries, and how many entries belong to none."""
    by_posting: dict[UUID, list[Entry]] = {}
    for row in entries:
        by_posting.setdefault(row.pop("posting_id"), []).append(Entry(**row))
    found = [Posting(**row, entries=tuple(by_posting.pop(row["id"], ()))) for row in postings]
    return found, sum(map(len, by_posting.values()))
