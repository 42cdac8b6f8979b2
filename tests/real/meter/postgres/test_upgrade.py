"""A database of the first version, with data, is brought up to date: nothing is lost."""

import hashlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib import resources

import asyncpg
import pytest
import pytest_asyncio

from meter.errors import Conflict
from meter.holds.hold_store import PostgresHolds
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import Posting, credit
from meter.postgres.migrate import migrate
from meter.postgres.pool import KEYED_SESSION, open_pool
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import LIFETIME, MODEL, USD, Books, observed
from tests.servers import drop_named
from tollkeeper.stack.servers import postgres
from tollkeeper.stack.servers.postgres import PostgresServer

FIRST = "0001_initial.sql"
CENT = USD // 100
GRANT: Posting = credit("alice", "first", 10 * USD, "a grant")
TAKEN: Posting = credit("alice", "second", -USD, "taken back")
SETTLED, OVER, RELEASED, UNKNOWN, OPEN = (uuid.UUID(int=n) for n in range(1, 6))

# What the first version wrote: two settlements (one of a former month, one above its hold), a
# release, an unknown and an open hold, and an administrator's two postings.
_ACCOUNTS = """
    INSERT INTO accounts (id, email) VALUES ('alice', 'alice@example.com');
    INSERT INTO credentials (id, account_id, name, digest, prefix)
        VALUES ('aaaaaaaaaaaaaaaa', 'alice', 'test', sha256('a'), 'sk');
    INSERT INTO models (id, name, context_length, max_completion_tokens, listing)
        VALUES ('openai/gpt-test', 'test', 128000, 16384, '{}');
    INSERT INTO prices (model_id, prompt_picos, completion_picos, request_picos, image_picos,
                        web_search_picos, reasoning_picos)
        VALUES ('openai/gpt-test', 150000, 600000, 0, 0, 0, 0);
    UPDATE accounts SET balance_picos = 9000000000000;
"""
_POSTING = """
    WITH posted AS (
        INSERT INTO postings (id, template, account_id, hold_id, reason)
        VALUES ($1, $2, 'alice', $3, $4)
    )
    INSERT INTO entries (posting_id, line, ledger_account, account_id, amount_picos)
    SELECT $1, line, ledger_account, 'alice', amount
    FROM unnest($5::smallint[], $6::text[], $7::bigint[]) AS e (line, ledger_account, amount)
"""
_USAGE = """
    INSERT INTO usage_records (
        hold_id, account_id, credential_id, model_id, endpoint, generation_id, started_at,
        prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
        provider_cost_picos, charge_picos, excess_picos, markup_bps, price_id, price_source,
        latency_ms, status_code, response_flags, is_streaming, source)
    SELECT id, account_id, credential_id, model_id, endpoint, 'gen-1', created_at, 10, 20, 0, 0,
           0, $2, $2, $3, 0, price_id, 'provider', 100, 200, '', false, 'stream'
    FROM holds WHERE id = $1
"""


Owner = asyncpg.Connection


async def post(
    owner: Owner, posting: Posting, template: str, hold_id: uuid.UUID | None = None
) -> None:
    entries = posting.entries
    await owner.execute(
        _POSTING,
        posting.id,
        template,
        hold_id,
        posting.reason,
        list(range(len(entries))),
        [entry.ledger_account.value for entry in entries],
        [entry.amount_picos for entry in entries],
    )


async def hold(owner: Owner, hold_id: uuid.UUID) -> None:
    """By the function of the first version: one dollar is set aside."""
    (row,) = await owner.fetch(
        "SELECT verdict FROM place_holds(ARRAY[$1::uuid], '{alice}', '{aaaaaaaaaaaaaaaa}', $2,"
        " '{chat_completions}', '{1}', '{0}', ARRAY[$3::bigint], '{0}', '{0}', '{0}', '{0}', $4)",
        hold_id,
        [MODEL],
        USD,
        LIFETIME,
    )
    assert row["verdict"] == "held"


async def settle(owner: Owner, hold_id: uuid.UUID, cents: int) -> None:
    """As the first version did: usage record, end of the hold, postings, balance."""
    over = max(0, cents - 100)
    await owner.execute(_USAGE, hold_id, cents * CENT, over * CENT)
    await owner.execute(
        "UPDATE holds SET state = 'settled', ended_at = clock_timestamp() WHERE id = $1", hold_id
    )
    parts = [("settlement", hold_id, cents - over), ("excess", uuid.uuid4(), over)]
    for template, posting_id, part in parts:
        if part:
            amounts = [-part * CENT, part * CENT]
            names = ["customer", "provider"]
            await owner.execute(
                _POSTING, posting_id, template, hold_id, None, [0, 1], names, amounts
            )
    await owner.execute(
        "SELECT move_balances('{alice}', ARRAY[$1::bigint], ARRAY[$2::bigint], ARRAY[$3::bigint])",
        cents * CENT,
        USD,
        over * CENT,
    )


async def fill(owner: Owner) -> None:
    await owner.execute(_ACCOUNTS)
    await post(owner, GRANT, "grant")
    await post(owner, TAKEN, "adjustment")
    for hold_id in (SETTLED, OVER, RELEASED, UNKNOWN, OPEN):
        await hold(owner, hold_id)
    await owner.execute(
        "UPDATE holds SET created_at = created_at - interval '50 days' WHERE id = $1", SETTLED
    )
    await settle(owner, SETTLED, 30)
    await settle(owner, OVER, 150)
    await owner.execute("SELECT release_holds(ARRAY[$1::uuid])", RELEASED)
    await owner.execute(
        "UPDATE holds SET state = 'unknown', unknown_reason = 'no_usage', generation_id = 'gen-2'"
        " WHERE id = $1",
        UNKNOWN,
    )


async def apply_first(owner: Owner) -> None:
    text = (resources.files("meter.postgres.migrations") / FIRST).read_text(encoding="utf-8")
    await owner.execute(text)
    await owner.execute(
        "CREATE TABLE schema_migrations (name text PRIMARY KEY, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    checksum = hashlib.sha256(text.encode()).hexdigest()
    await owner.execute("INSERT INTO schema_migrations VALUES ($1, $2)", FIRST, checksum)


@pytest_asyncio.fixture
async def upgraded(postgres_server: PostgresServer) -> AsyncIterator[Books]:
    """The books after all later migrations, as the service sees them."""
    name = f"upgraded_{uuid.uuid4().hex[:12]}"
    await postgres.create_roles_and_database(postgres_server, name)
    owner_dsn = postgres_server.dsn(postgres.OWNER_ROLE, name)
    owner = await asyncpg.connect(owner_dsn)
    await apply_first(owner)
    await fill(owner)
    await owner.close()
    assert FIRST not in await migrate(owner_dsn)
    assert await migrate(owner_dsn) == []
    service_dsn = postgres_server.dsn(postgres.SERVICE_ROLE, name)
    pool = await open_pool(service_dsn, 4, KEYED_SESSION)
    yield Books(pool, PostgresHolds(pool, LIFETIME), 1)
    await pool.close()
    await drop_named(postgres_server, name)


async def test_an_upgrade_keeps_every_amount_and_ending(upgraded: Books) -> None:
    verification = await upgraded.verified()
    assert verification.is_ok, verification.failures
    assert await upgraded.funds("alice") == (9 * USD - 180 * CENT, 2 * USD, 0)
    totals = verification.totals
    assert (totals.charge_picos, totals.excess_picos) == (180 * CENT, 50 * CENT)
    assert (totals.postings, totals.entries, totals.usage_records) == (5, 10, 2)
    assert (totals.holds, totals.open_holds, totals.unknown_holds) == (5, 1, 1)
    states = [await upgraded.state(one) for one in (SETTLED, OVER, RELEASED, UNKNOWN, OPEN)]
    assert states == ["settled", "settled", "released", "unknown", "open"]
    assert await upgraded.records(OVER) == [(0, "settlement", "stream", 150 * CENT, 50 * CENT)]


async def test_an_upgraded_hold_is_settled_corrected_and_late(upgraded: Books) -> None:
    settlements = PostgresSettlementStore(upgraded.pool)
    repeated = [observed(SETTLED, "0.30"), observed(OVER, "1.50")]
    assert all(plan.is_empty for plan in await settlements.settle(repeated))
    await settlements.settle(
        [
            observed(SETTLED, "0.40", source=Source.LOOKUP),
            observed(RELEASED, "0.05"),
            observed(UNKNOWN, "0.06", source=Source.LOOKUP),
            observed(OPEN, "0.07"),
        ]
    )
    assert await upgraded.funds("alice") == (9 * USD - (180 + 10 + 5 + 6 + 7) * CENT, 0, 0)
    verification = await upgraded.verified()
    assert verification.is_ok, verification.failures
    assert verification.totals.batches == 3


async def test_an_unknown_hold_of_before_is_looked_up(upgraded: Books) -> None:
    (row,) = await upgraded.pool.fetch(
        "SELECT hold_id, generation_id, reason, deadline_at - created_at AS patience FROM lookups"
    )
    assert (row["hold_id"], row["generation_id"], row["reason"]) == (UNKNOWN, "gen-2", "no_usage")
    assert timedelta(0) < row["patience"] <= timedelta(hours=1)


async def test_a_credit_of_before_is_replayed_not_repeated(upgraded: Books) -> None:
    ledger = LedgerStore(upgraded.pool)
    first, second = await ledger.post_credit(GRANT), await ledger.post_credit(TAKEN)
    assert first.was_replayed and second.was_replayed
    assert (first.balance_after_picos, second.balance_after_picos) == (10 * USD, 9 * USD)
    with pytest.raises(Conflict):
        await ledger.post_credit(credit("alice", "first", USD, "a grant"))
    assert (await upgraded.funds("alice"))[0] == 9 * USD - 180 * CENT
