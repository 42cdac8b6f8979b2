"""No statement on a request's path, in settlement or under a money lock grows with history.

An account has 250,000 past requests, and as many other things as its owner could make. Then the
real stores work for it, and Postgres reports the plan of every statement, those within functions
included. No part of a plan may touch more rows than MOST_ROWS.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from meter.audit.events import Actor
from meter.clock import SystemClock
from meter.holds.sweep_store import SweepStore
from meter.identity.keys.key_rights import Administrator
from meter.identity.keys.key_service import KeyService
from meter.identity.keys.key_store import KeyStore
from meter.identity.keys.key_terms import KeyTerms, TermChanges
from meter.identity.keys.key_text import mint
from meter.identity.principal import ByAccount, ByKey
from meter.identity.principal_store import PostgresPrincipals
from meter.ledger.checkpoints import advance, compare, get_last_batch, snapshot
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.ledger.usage_days import UsageDays
from meter.lookups.pending import ReportedGeneration
from meter.lookups.queue import LookupQueue
from meter.postgres.pool import KEYED_SESSION, PostgresPool, acquire, open_pool, queries
from meter.process.crash_points import NoCrashPoints
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.parked_store import ParkedEndingStore
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.generation_store import GenerationStore
from meter.usage.usage import Source
from meter.usage.usage_store import UsageStore
from meter.usage.usage_totals import Grouping
from tests.books import PEPPER, USD, Books, Payer, observed
from tests.servers import Database
from tollkeeper.stack.servers import postgres
from tollkeeper.stack.servers.postgres import PostgresServer

PAST_REQUESTS = 250_000
PAST_OTHERS = 50_000
MOST_ROWS = 2_000

_RECONCILE_BOOKS = queries("meter.reconciliation")["reconcile_books"]
_RECONCILE_COST = queries("meter.reconciliation")["reconcile_cost"]

_EXPLAINED = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
}
# Without indexes first: attaching a partition makes them, which is much faster than one by one.
_UNINDEXED = """
    DO $$
    DECLARE
        parent text;
        month  text := to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM');
        part   text;
        kept   record;
    BEGIN
        FOREACH parent IN ARRAY ARRAY['ended_hold_rows', 'usage_rows', 'posting_rows', 'entry_rows',
                                     'settlements'] LOOP
            part := parent || '_' || month;
            EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, part);
            FOR kept IN SELECT conname FROM pg_constraint
                        WHERE conrelid = part::regclass AND contype = 'p' LOOP
                EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', part, kept.conname);
            END LOOP;
            FOR kept IN SELECT indexrelid::regclass AS name FROM pg_index
                        WHERE indrelid = part::regclass LOOP
                EXECUTE format('DROP INDEX %s', kept.name);
            END LOOP;
            EXECUTE format('ALTER TABLE %I RENAME TO %I', part, parent || '_past');
        END LOOP;
    END $$
"""
_PAST = """
    CREATE TEMP TABLE past AS
    SELECT lpad(to_hex(n), 32, '0')::uuid AS id,
           date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
               + n * (now() - date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
                   / {requests} AS at
    FROM generate_series(1, {requests}) AS n;
    INSERT INTO ended_hold_rows_past (
        id, placed_at, account_id, credential_id, model_id, endpoint, price_id, markup_bps,
        amount_picos, flat_cost_picos, max_tokens, state, reason, ended_at)
    SELECT id, at, 'alice', '{key}', 'm', 'chat_completions', 1, 0, 9, 0, 100, 'settled',
           'settled', at FROM past;
    INSERT INTO usage_rows_past (
        hold_id, placed_at, account_id, credential_id, model_id, endpoint, started_at,
        recorded_at, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,
        reasoning_tokens, provider_cost_picos, charge_picos, excess_picos, markup_bps,
        price_id, price_source, latency_ms, status_code, response_flags, is_streaming, source)
    SELECT id, at, 'alice', '{key}', 'm', 'chat_completions', at, at, 10, 20, 0, 0, 0, 2, 2, 0, 0,
           1, 'provider', 100, 200, '', false, 'stream' FROM past;
    INSERT INTO posting_rows_past (id, booked_at, batch, template, account_id, hold_id, recorded_at)
    SELECT id, at, 0, 'settlement', 'alice', id, at FROM past;
    INSERT INTO entry_rows_past (posting_id, booked_at, line, ledger_account, account_id,
                                 amount_picos)
    SELECT id, at, 0, 'customer', 'alice', -2 FROM past;
    INSERT INTO settlements_past (
        id, placed_at, batch, recorded_at, started_at, price_id, held_picos, flat_cost_picos,
        max_tokens, customer_picos, provider_picos, revenue_picos, prompt_tokens,
        completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, markup_bps,
        latency_ms, status_code, is_streaming, account_id, credential_id, model_id, endpoint,
        response_flags, price_source, source)
    SELECT ('f' || substr(id::text, 2))::uuid, at, 0, at, at, 1, 9, 0, 100, -2, 2, 0, 10, 20, 0, 0,
           0, 0, 100, 200, false, 'alice', '{key}', 'm', 'chat_completions', '', 'provider',
           'stream' FROM past;
"""
_ATTACHED = """
    DO $$
    DECLARE
        parent text;
        opens  timestamptz := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
        closes timestamptz := (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month')
            AT TIME ZONE 'UTC';
    BEGIN
        FOREACH parent IN ARRAY ARRAY['ended_hold_rows', 'usage_rows', 'posting_rows', 'entry_rows',
                                     'settlements'] LOOP
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           parent, parent || '_past', opens, closes);
        END LOOP;
    END $$
"""
# The totals of usage by day, which migration 0034 makes of what is there.
_DAYS = """
    INSERT INTO usage_days
    SELECT account_id, (placed_at AT TIME ZONE 'UTC')::date, credential_id, model_id, true,
           count(*), sum(prompt_tokens), sum(completion_tokens), 0, 0, sum(provider_picos),
           -sum(customer_picos)
    FROM settlements WHERE batch = 0 GROUP BY 1, 2, 3, 4;
    UPDATE usage_position SET seq = (SELECT max(seq) FROM settlements WHERE batch = 0);
"""
_OTHERS = """
    INSERT INTO credentials (id, account_id, name, prefix, revoked_at)
    SELECT translate(lpad(n::text, 16, '0'), '0189', 'abcd'), 'alice', 'ended', 'sk', now()
    FROM generate_series(1, {others}) AS n;
    INSERT INTO audit_log (actor, action, subject, account_id)
    SELECT 'user:alice', 'key.created', 'key:' || n, 'alice' FROM generate_series(1, {others}) AS n;
    INSERT INTO settlement_conflicts (hold_id, kind, arrived)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'other_amount', '{{}}'
    FROM generate_series(1, {others}) AS n;
    INSERT INTO parked_endings (hold_id, account_id, observed)
    SELECT gen_random_uuid(), 'nobody', '{{}}' FROM generate_series(1, {others}) AS n;
"""


class Explained(asyncpg.Connection):
    """A connection that keeps the plans of its statements."""

    plans: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def _process_log_message(self, fields: dict[str, str], last_query: str) -> None:
        _, found, plan = fields["M"].partition("plan:\n")
        if found:
            told = json.loads(plan)
            self.plans.append((told["Query Text"], told["Plan"]))
        super()._process_log_message(fields, last_query)  # type: ignore[misc]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every part of a plan."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


def touched(node: dict[str, Any]) -> float:
    """Return the number of rows that a part of a plan looked at."""
    per_loop = (
        node["Actual Rows"]
        + node.get("Rows Removed by Filter", 0)
        + node.get("Rows Removed by Index Recheck", 0)
        + node.get("Rows Removed by Join Filter", 0)
    )
    return float(per_loop * node["Actual Loops"])


def unbounded() -> list[str]:
    """Statements with a part that touched too many rows."""
    return [
        f"{node['Node Type']} of {node.get('Relation Name')}: {touched(node):.0f} rows in {query}"
        for query, plan in Explained.plans
        for node in nodes(plan)
        if touched(node) > MOST_ROWS
    ]


@dataclass
class Past:
    """Books with a long past, seen through both kinds of pools."""

    books: Books
    payer: Payer
    api: PostgresPool


@pytest_asyncio.fixture
async def past(
    postgres_server: PostgresServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Past]:
    """An account with a long past."""
    superuser = await asyncpg.connect(postgres_server.dsn(postgres.SUPERUSER, database.name))
    for name, value in _EXPLAINED.items():
        await superuser.execute(f"ALTER DATABASE \"{database.name}\" SET {name} = '{value}'")
    explained = partial(asyncpg.create_pool, connection_class=Explained)
    monkeypatch.setattr("asyncpg.create_pool", explained)
    api = await open_pool(database.service_dsn, 4)
    keyed = await open_pool(database.service_dsn, 4, KEYED_SESSION)
    books = await Books.open(keyed)
    payer = await books.payer("alice", 100 * USD)
    await superuser.execute("SET synchronous_commit = off; SET auto_explain.log_min_duration = -1")
    await superuser.execute(f"SET ROLE {postgres.OWNER_ROLE}")
    await superuser.execute(_UNINDEXED)
    await superuser.execute(_PAST.format(requests=PAST_REQUESTS, key=payer.credential_id))
    await superuser.execute(_ATTACHED)
    # As if all of it had been verified.
    await superuser.execute("SELECT seal_checkpoint(0)")
    await superuser.execute(_DAYS)
    await superuser.execute(_OTHERS.format(others=PAST_OTHERS))
    await superuser.execute("ANALYZE")
    await superuser.close()
    Explained.plans.clear()
    yield Past(books, payer, api)
    await books.holds.close()
    await api.close()
    await keyed.close()


@pytest.mark.lock_timeouts
async def test_nothing_that_requests_or_settlements_ask_grows_with_history(past: Past) -> None:
    books, payer = past.books, past.payer
    settlements = PostgresSettlementStore(books.pool)
    request = replace(books.request(payer, USD // 100), account_concurrent=50, key_concurrent=50)
    await books.holds.place(request)
    held = [request.hold_id] + [await books.held(payer, USD // 100) for _ in range(5)]
    await settlements.settle([observed(held[0]), observed(held[1]), observed(UUID(int=1), "9")])
    await settlements.settle([observed(held[0]), observed(held[0], "0.002", source=Source.LOOKUP)])
    await settlements.settle([observed(held[2], usage=None), observed(held[0], "0.003")])
    void = PolicyDecision(held[3], PolicyVerdict.VOID, Rule.NOT_REPORTED, None)
    await settlements.end_by_policy([void])
    await books.holds.release([held[4]])
    async with books.pool.acquire() as session, session.transaction():
        await session.execute("SELECT 1 FROM accounts WHERE id = 'alice' FOR UPDATE")
        await settlements.settle([observed(held[5])])
    await ParkedEndingStore(books.pool).list_free()

    # What is read once a day is what was written since the day before.
    async with acquire(books.pool) as daily:
        assert (await advance(daily)).failures == ()
        await books.holds.release([await books.held(payer, 1)])
        assert (await advance(daily)).failures == ()
        async with snapshot(daily):
            last_batch = await get_last_batch(daily)
            await compare(daily, last_batch)
            await daily.fetch(_RECONCILE_BOOKS, last_batch, *[None] * 8)
            await daily.fetch(_RECONCILE_COST, datetime.now(UTC), last_batch)

    # A page of usage is read before and after the last settlements are in the totals by day.
    month = (datetime.now(UTC).date() - timedelta(days=40), datetime.now(UTC).date())
    for grouping in Grouping:
        [*_, usage] = await UsageStore(past.api).list_totals("alice", grouping, month, None, 100)
        assert usage.requests > 0
        await UsageDays(past.api).add_up()

    # What a reply cost is looked for around the time that its id names, however much there is.
    generations = GenerationStore(past.api, SystemClock())
    assert await generations.find("alice", f"gen-{int(time.time()) - 90_000}-none") is None
    assert await UsageStore(past.api).total_charged("alice") > 0
    await UsageStore(past.api).find_spending("alice", payer.credential_id, has_own_keys=True)

    lookups = LookupQueue(books.pool, LookupTerms(timedelta(0)), "openrouter")
    await lookups.note([ReportedGeneration(held[2], "gen-2", 5)])
    await lookups.note([ReportedGeneration(UUID(int=5), "gen-3", 5)])
    for pending in await lookups.claim(10):
        await lookups.postpone(pending.hold_id, timedelta(0))
        await lookups.forget(pending.hold_id, pending.generation_id)
    sweep = SweepStore(past.api, timedelta(minutes=1), NoCrashPoints())
    await sweep.note_undecided([UUID(int=7)])
    await sweep.release_undecided()
    await sweep.expire()

    await change_keys(past)
    # The key has budgets now: each of these is judged by itself.
    unknown = replace(books.request(payer, USD // 100), pass_id="no-such-pass-0123")
    await asyncio.gather(*map(books.holds.place, (books.request(payer, USD // 100), unknown)))
    ledger = LedgerStore(past.api)
    await ledger.post_credit(credit("alice", "gift", USD, "a gift"))
    await ledger.list_transactions("alice", None, 50)
    principals = PostgresPrincipals(past.books.pool)
    await principals.find(ByKey(PEPPER.digest(past.payer.plain_key)))
    await principals.find(ByAccount("alice"))

    assert len(Explained.plans) > 100
    found = unbounded()
    assert not found, "\n".join(found)


async def change_keys(past: Past) -> None:
    """Do all that happens to keys under the lock of their account."""
    key_id = past.payer.credential_id
    keys = KeyService(KeyStore(past.api), PEPPER)
    actor = Actor("operator", None)
    own = mint()
    await keys.create(actor, "alice", own, KeyTerms(name="another"), Administrator())
    budgets = dict.fromkeys(("day_picos", "week_picos", "month_picos", "total_picos"), 50 * USD)
    await keys.change(actor, "alice", key_id, TermChanges(budgets=budgets), Administrator())
    await keys.set_suspended(actor, "alice", key_id, True, Administrator())
    await keys.set_suspended(actor, "alice", key_id, False, Administrator())
    await keys.rotate(actor, "alice", mint(key_id), timedelta(0), Administrator())
    await keys.revoke(actor, "alice", own.credential_id, Administrator())
