"""Accounts take turns at the provider, however many requests of one of them are unknown."""

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from meter.lookups import queue
from meter.lookups.queue import ACCOUNTS_PASSED, LookupQueue
from meter.postgres.pool import queries
from meter.settlement.look_up_terms import LookupTerms
from tests.books import Books

CLAIM = 16
CLAIM_LOOKUPS = queries("meter.lookups")["claim_lookups"]
NEXT_ACCOUNTS = queries("meter.lookups")["next_accounts"]


async def add(books: Books, account_id: str, how_many: int, due_in_s: float = -60) -> None:
    """Look-ups of an account, due one after the other."""
    await books.pool.execute(
        "INSERT INTO lookups (hold_id, account_id, reason, due_at, deadline_at)"
        " SELECT gen_random_uuid(), $1, 'no_usage',"
        " clock_timestamp() + make_interval(secs => $3 + number::float8 / 1000),"
        " clock_timestamp() + interval '1 hour' FROM generate_series(1, $2) number",
        account_id,
        how_many,
        due_in_s,
    )


def queue_of(books: Books) -> LookupQueue:
    return LookupQueue(books.pool, LookupTerms(), "openrouter")


async def served(books: Books, lookups: LookupQueue, claims: int) -> list[str]:
    """The accounts of the look-ups that so many claims took, in order."""
    taken = []
    for _ in range(claims):
        for pending in await lookups.claim(CLAIM):
            taken.append(
                await books.pool.fetchval(
                    "SELECT account_id FROM lookups WHERE hold_id = $1", pending.hold_id
                )
            )
    return taken


async def test_thousands_of_one_account_hold_up_nobody(books: Books) -> None:
    await add(books, "many", 5_000, due_in_s=-3_600)
    for number in range(8):
        await add(books, f"few-{number}", 2)
    lookups = queue_of(books)
    first = await served(books, lookups, 1)
    assert len(first) == CLAIM
    assert {f"few-{number}" for number in range(8)} | {"many"} == set(first)
    rest = await served(books, lookups, 1)
    assert len(rest) == CLAIM, "an account that is alone gets all of a claim"


async def test_every_account_has_its_turn(books: Books) -> None:
    accounts = [f"account-{number:03}" for number in range(3 * CLAIM)]
    for account_id in accounts:
        await add(books, account_id, 5)
    lookups = queue_of(books)
    assert sorted(await served(books, lookups, 3)) == accounts
    assert sorted(await served(books, lookups, 3)) == accounts


async def test_accounts_with_nothing_due_are_passed_by(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ACCOUNTS_PASSED", 10)
    for number in range(25):
        await add(books, f"account-{number:03}", 3, due_in_s=600)
    await add(books, "zoe", 1)
    lookups = queue_of(books)
    assert await served(books, lookups, 2) == []
    assert await served(books, lookups, 1) == ["zoe"]
    assert await served(books, lookups, 1) == []


def rows_read(plan: dict[str, Any]) -> int:
    """Rows that a plan read of the table, whether it kept them or not."""
    own = 0
    if plan.get("Relation Name") == "lookups" and plan["Node Type"] != "ModifyTable":
        assert "Index" in plan["Node Type"], plan["Node Type"]
        removed = plan.get("Rows Removed by Filter", 0)
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return int(own) + sum(rows_read(part) for part in plan.get("Plans", []))


async def explained(books: Books, statement: str, *arguments: object) -> int:
    """Rows of look-ups that a statement reads."""
    async with books.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
        await transaction.rollback()
    return rows_read(json.loads(text)[0]["Plan"])


async def test_a_claim_reads_as_little_of_a_hundred_thousand_look_ups_as_of_a_few(
    books: Books, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await add(books, "many", 50_000)
    for number in range(10):
        await add(books, f"not-yet-{number}", 4_000, due_in_s=3_600)
    await books.pool.execute(
        "INSERT INTO lookups (hold_id, account_id, reason, due_at, deadline_at)"
        " SELECT gen_random_uuid(), 'one-' || number, 'no_usage', clock_timestamp(),"
        " clock_timestamp() FROM generate_series(1, 10000) number"
    )
    await owner.execute("ANALYZE lookups")
    walked = await explained(books, NEXT_ACCOUNTS, "", CLAIM, ACCOUNTS_PASSED)
    assert walked <= CLAIM + 10 + 1
    accounts = ["many", "not-yet-1", *(f"one-{number}" for number in range(14))]
    read = await explained(
        books,
        CLAIM_LOOKUPS,
        CLAIM,
        timedelta(seconds=30),
        "openrouter",
        timedelta(minutes=15),
        accounts,
        [],
    )
    # Each is found by its account, then locked, then changed.
    assert read <= 5 * CLAIM + len(accounts)
