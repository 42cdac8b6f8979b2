"""Builds what tests of the books need: accounts with money, models with prices, observations."""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from meter.holds.hold import HoldPlaced, HoldRequest, new_hold_id
from meter.holds.hold_store import PostgresHolds
from meter.identity.keys.key_text import Pepper, mint
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.ledger.verification import Verification
from meter.ledger.verification_store import VerificationStore
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Estimate, OfferedModel
from meter.process.crash_points import NoCrashPoints
from meter.settlement.parked import ParkedEndings
from meter.settlement.parked_store import ParkedEndingStore
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.usual_use import ASSUMED_BYTES_PER_TOKEN
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts
from tests.servers import Database

USD = 10**12
MODEL = "openai/gpt-test"
PEPPER = Pepper.from_master_key(b"m" * 32)
LIFETIME = timedelta(minutes=30)


def offered(model_id: str = MODEL, prompt_picos: int = 150_000, **changes: object) -> OfferedModel:
    """A model of the catalogue; by default 0.15 / 0.60 USD for a million tokens."""
    model = OfferedModel(
        id=model_id,
        name=model_id,
        context_length=128_000,
        max_completion_tokens=16_384,
        prompt_picos=prompt_picos,
        completion_picos=4 * prompt_picos,
        request_picos=0,
        image_picos=0,
        web_search_picos=0,
        reasoning_picos=0,
        cache_read_picos=None,
        cache_write_picos=None,
        listing={"created": 1_700_000_000},
    )
    return replace(model, **changes)  # type: ignore[arg-type]


def assumed_charge(held_picos: int) -> int:
    """Return the charge by policy for a hold by `Books.held`, while nothing of its model is known.

    Such a hold allows a prompt and no reply.
    """
    prompt_picos = held_picos - PROMPT_OVERHEAD_TOKENS * offered().prompt_picos
    return prompt_picos // ASSUMED_BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Payer:
    """An account with one live API key."""

    account_id: str
    credential_id: str
    plain_key: str


async def add_key(
    connection: PostgresConnection, account_id: str, key_id: str, prefix: str, digest: bytes
) -> None:
    """A key with one secret, straight into the tables."""
    await connection.execute(
        "INSERT INTO credentials (id, account_id, name, prefix) VALUES ($1, $2, 'test', $3)",
        key_id,
        account_id,
        prefix,
    )
    await connection.execute(
        "INSERT INTO credential_secrets (digest, credential_id) VALUES ($1, $2)", digest, key_id
    )


@dataclass
class Books:
    """A migrated database with one priced model, seen through the real stores."""

    pool: PostgresPool
    holds: PostgresHolds
    price_id: int

    @classmethod
    async def open(cls, pool: PostgresPool) -> "Books":
        """Price the model and wrap the pool."""
        catalogue = PostgresCatalogue(pool)
        await catalogue.save("openrouter", [offered()])
        price_id = (await catalogue.load_models())[MODEL].price.id
        return cls(pool, PostgresHolds(pool, LIFETIME), price_id)

    async def payer(self, account_id: str, balance_picos: int) -> Payer:
        """An account with this balance and a key."""
        key = mint()
        async with acquire(self.pool) as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO accounts (id, email) VALUES ($1, $1 || '@example.com')", account_id
            )
            digest = PEPPER.digest(key.plain.reveal())
            await add_key(connection, account_id, key.credential_id, key.prefix, digest)
        if balance_picos:
            first = credit(account_id, "first", balance_picos, "test credit")
            await LedgerStore(self.pool).post_credit(first)
        return Payer(account_id, key.credential_id, key.plain.reveal())

    def request(
        self,
        payer: Payer,
        fixed_picos: int,
        per_token_picos: int = 0,
        min_tokens: int = 0,
        max_tokens: int = 0,
        markup_bps: int = 0,
    ) -> HoldRequest:
        """A request for a hold of this size."""
        return HoldRequest(
            hold_id=new_hold_id(datetime.now(UTC)),
            account_id=payer.account_id,
            credential_id=payer.credential_id,
            model_id=MODEL,
            endpoint="chat_completions",
            estimate=Estimate(
                price_id=self.price_id,
                markup_bps=markup_bps,
                fixed_picos=fixed_picos,
                per_token_picos=per_token_picos,
                max_tokens=max_tokens,
                min_tokens=min_tokens,
                flat_cost_picos=0,
            ),
        )

    async def held(
        self,
        payer: Payer,
        amount_picos: int,
        markup_bps: int = 0,
        placed_at: datetime | None = None,
    ) -> uuid.UUID:
        """Place a hold of this size and return its id; as if it had been at `placed_at`."""
        answer = await self.holds.place(self.request(payer, amount_picos, markup_bps=markup_bps))
        assert isinstance(answer, HoldPlaced), answer
        if placed_at is not None:
            moved = "UPDATE holds SET created_at = $2, expires_at = $2 WHERE id = $1"
            await self.pool.execute(moved, answer.hold_id, placed_at)
        return answer.hold_id

    async def settle_parked(self) -> None:
        """Settle what was parked, as the task of a meter does.

        Settlements at the same time park what they find locked by one another, on a slow machine
        more of it.
        """
        parked = ParkedEndings(
            ParkedEndingStore(self.pool),
            PostgresSettlementStore(self.pool),
            lambda changes: None,
            CollectorRegistry(),
            NoCrashPoints(),
        )
        while await self.pool.fetchval("SELECT count(*) FROM parked_endings"):
            await parked.step()

    async def funds(self, account_id: str) -> tuple[int, int, int]:
        """Balance, held and overdrawn, in pico-dollars."""
        row = await self.pool.fetchrow(
            "SELECT balance_picos, held_picos, overdrawn_picos FROM accounts WHERE id = $1",
            account_id,
        )
        assert row is not None
        return row["balance_picos"], row["held_picos"], row["overdrawn_picos"]

    async def state(self, hold_id: uuid.UUID) -> str:
        """The state of a hold, live or ended."""
        states = await self.pool.fetch(
            "SELECT state FROM holds WHERE id = $1"
            " UNION ALL SELECT state FROM ended_holds WHERE id = $1",
            hold_id,
        )
        # Live or ended, never both.
        assert len(states) == 1
        return str(states[0]["state"])

    async def postings(self, hold_id: uuid.UUID) -> list[tuple[str, int]]:
        """Template and customer's amount of each posting about a hold, in order."""
        rows = await self.pool.fetch(
            "SELECT p.template, sum(e.amount_picos)::bigint FROM postings p"
            " JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at"
            " WHERE p.hold_id = $1 AND e.ledger_account = 'customer'"
            " GROUP BY p.seq, p.template ORDER BY p.seq",
            hold_id,
        )
        return [(row[0], row[1]) for row in rows]

    async def records(self, hold_id: uuid.UUID) -> list[tuple[int, str, str, int, int]]:
        """Revision, kind, source, charge and excess of each usage record of a hold."""
        rows = await self.pool.fetch(
            "SELECT revision, kind, source, charge_picos, excess_picos FROM usage_records"
            " WHERE hold_id = $1 ORDER BY revision",
            hold_id,
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    async def conflicts(self) -> list[str]:
        """The kinds of all conflicts, in order."""
        rows = await self.pool.fetch("SELECT kind FROM settlement_conflicts ORDER BY id")
        return [row["kind"] for row in rows]

    async def verified(self) -> Verification:
        """Return the findings of a check of the whole books."""
        return await VerificationStore(self.pool).verify()


# The observation of a request that was never sent to a provider.
NEVER_REACHED: dict[str, Any] = {
    "usage": None,
    "reached_provider": False,
    "provider_status": None,
    "time_to_first_byte_ms": None,
    "generation_id": None,
    "upstream_ms": None,
}


def observed(hold_id: uuid.UUID, cost_usd: str | None = "0.001", **changes: object) -> Observation:
    """A finished request with usage, or without any when `usage=None` is given."""
    observation = Observation(
        hold_id=hold_id,
        started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        latency_ms=120,
        time_to_first_byte_ms=30,
        status_code=200,
        provider_status=200,
        response_flags="",
        reached_provider=True,
        is_streaming=False,
        generation_id="gen-1",
        usage=ReportedUsage(
            TokenCounts(prompt=10, completion=20),
            cost_usd=None if cost_usd is None else Decimal(cost_usd),
        ),
        source=Source.STREAM,
        response_bytes=600,
        upstream_ms=110,
    )
    return replace(observation, **changes)  # type: ignore[arg-type]


async def refused_by_database(pool: PostgresPool, statement: str) -> bool:
    """Return whether Postgres itself refuses a statement of this role."""
    try:
        await pool.execute(statement)
    except asyncpg.PostgresError:
        return True
    return False


# What nobody may change, on pain of a trigger.
PROTECTED = (
    "settlements",
    "kept_settlements",
    "usage_rows",
    "posting_rows",
    "entry_rows",
    "ledger_batches",
    "ended_hold_rows",
    "ledger_checkpoints",
    "sealed_entries",
    "sealed_usage",
    "dropped_months",
    "credit_postings",
)


async def disable_protection(owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Disable the triggers, as an owner of the database who intends harm can."""
    for table in PROTECTED:
        await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")


async def without_protection(database: Database, statement: str) -> None:
    """Change the books as somebody could who owns the database and means harm."""
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        await disable_protection(owner)
        await owner.execute(statement)
    finally:
        await owner.close()
