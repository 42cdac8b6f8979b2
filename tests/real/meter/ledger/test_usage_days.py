"""Totals of usage equal the sum over the records, whenever these were added up."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from chaos.locks import locked
from meter.errors import RowLocked
from meter.ledger.usage_days import UsageDays
from meter.postgres.pool import PostgresConnection
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from meter.usage.usage_store import UsageStore
from meter.usage.usage_totals import Grouping
from tests.books import MODEL, USD, Books, observed
from tests.patience import WAIT_S
from tests.servers import Database

DAYS = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)]
STEPS = 60
_SUMS = """
    SELECT CASE $2 WHEN 'day' THEN to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')
                   WHEN 'model' THEN model_id ELSE credential_id END AS key,
           count(*) FILTER (WHERE revision = 0), sum(prompt_tokens), sum(completion_tokens),
           sum(cached_tokens), sum(reasoning_tokens), sum(provider_cost_picos), sum(charge_picos),
           coalesce(sum(own_key_cost_picos), 0)
    FROM usage_records
    WHERE account_id = $1 AND (placed_at AT TIME ZONE 'UTC')::date BETWEEN $3 AND $4
    GROUP BY 1 ORDER BY 1
"""


_WAITS = """
    SELECT count(*) > 0 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
      AND query LIKE '%ledger_chains%'
"""


class OneConnection:
    """A pool of a connection that is in a transaction."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[PostgresConnection]:
        """Return the connection."""
        yield self._connection


async def totals(books: Books, account_id: str, grouping: Grouping, *days: date) -> list[Any]:
    """Return what the API tells."""
    rows = await UsageStore(books.pool).list_totals(
        account_id, grouping, (days[0], days[-1]), None, 100
    )
    return [tuple(getattr(row, name) for name in row.__slots__) for row in rows]


async def check(books: Books, *accounts: str) -> None:
    """Compare all that the API tells of accounts with the records."""
    for account_id, grouping, last in product(accounts, Grouping, DAYS):
        days = (DAYS[1].date(), max(DAYS[1].date(), last.date()))
        expected = await books.pool.fetch(_SUMS, account_id, str(grouping), *days)
        found = await totals(books, account_id, grouping, *days)
        assert found == [tuple(row) for row in expected]


@pytest.mark.parametrize("seed", [1, 2])
async def test_totals_are_the_sum_over_the_records(books: Books, seed: int) -> None:
    draw = random.Random(seed)
    payers = [await books.payer(name, 500 * USD) for name in ("ada", "bob")]
    settlements = PostgresSettlementStore(books.pool)
    adding = UsageDays(books.pool, chunk_postings=3)
    held: list[UUID] = []
    for _ in range(STEPS):
        for _ in range(draw.randrange(4)):
            at = draw.choice(DAYS)
            held.append(await books.held(draw.choice(payers), USD, 2_000, placed_at=at))
        chosen = draw.sample(held, k=min(len(held), 3))
        match draw.randrange(6):
            case 0:
                # Above the hold, within it, nothing, and without a price that is named.
                costs = [draw.choice(["1.5", "0.25", "0.1", "0", None]) for _ in chosen]
                await settlements.settle(
                    [observed(one, cost) for one, cost in zip(chosen, costs, strict=True)]
                )
            case 1:
                await settlements.settle([observed(one, usage=None) for one in chosen])
            case 2:
                cost = draw.choice(["0.05", "0.4"])
                await settlements.settle(
                    [observed(one, cost, source=Source.LOOKUP) for one in chosen]
                )
            case 3:
                verdict = draw.choice(list(PolicyVerdict))
                await settlements.end_by_policy(
                    [PolicyDecision(one, verdict, Rule.NOT_REPORTED, None) for one in chosen]
                )
            case 4:
                await adding.add_up()
            case 5:
                # Two meters at once. One may wait too long for the other, on a slow machine.
                both = (adding.add_up(), UsageDays(books.pool).add_up())
                for outcome in await asyncio.gather(*both, return_exceptions=True):
                    assert outcome is None or isinstance(outcome, RowLocked)
        await check(books, "ada")
    await check(books, "ada", "bob")
    await adding.add_up()
    await check(books, "ada", "bob")
    # Nothing was left for an answer to read one by one.
    unread = "SELECT count(*) FROM settlements WHERE batch > (SELECT batch FROM usage_position)"
    assert await books.pool.fetchval(unread) == 0


async def test_a_batch_that_commits_late_is_added_once(books: Books, database: Database) -> None:
    payer = await books.payer("ada", 10 * USD)
    early, late = [await books.held(payer, USD, placed_at=DAYS[1]) for _ in range(2)]
    settlements = PostgresSettlementStore(books.pool)
    adding = UsageDays(books.pool)
    day = DAYS[1].date()
    other = await books.payer("bob", USD)
    async with locked(database.service_dsn, "SELECT 1") as writer:
        waiting = PostgresSettlementStore(OneConnection(writer))  # type: ignore[arg-type]
        await waiting.settle([observed(early, "0.25")])
        # Of a later batch, and committed before.
        await settlements.settle([observed(await books.held(other, USD, placed_at=DAYS[1]), "0.1")])
        waiting_adder = asyncio.create_task(adding.add_up())
        async with asyncio.timeout(WAIT_S):
            while not await books.pool.fetchval(_WAITS):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await totals(books, "ada", Grouping.MODEL, day) == []
        [row] = await totals(books, "bob", Grouping.MODEL, day)
        assert row[1] == 1
    await waiting_adder
    await check(books, "ada", "bob")
    await settlements.settle([observed(late, "0.5")])
    [row] = await totals(books, "ada", Grouping.MODEL, day)
    assert (row[0], row[1], row[-2]) == (MODEL, 2, 3 * USD // 4)
    await check(books, "bob")
