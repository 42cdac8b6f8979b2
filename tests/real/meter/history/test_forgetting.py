"""Old keys, audit lines and conflicts are deleted in batches, and nothing that is still needed."""

import uuid
from typing import TYPE_CHECKING

import asyncpg
import pytest

from meter.history.month_store import HistoryStore
from meter.settlement.settlement_store import MOST_CONFLICTS, PostgresSettlementStore
from tests.books import USD, Books, observed

if TYPE_CHECKING:
    Owner = asyncpg.Connection[asyncpg.Record]

DAYS = 100
OLD = "clock_timestamp() - interval '101 days'"
YOUNG = "clock_timestamp() - interval '99 days'"


async def line(owner: "Owner", action: str, subject: str, at: str) -> None:
    await owner.execute(
        f"INSERT INTO audit_log (at, actor, action, subject) VALUES ({at}, 'a', $1, $2)",
        action,
        subject,
    )


async def test_keys_that_ended_long_ago_go_and_their_usage_stays(
    books: Books, owner: "Owner"
) -> None:
    payers = {name: await books.payer(name, USD) for name in ("old", "young", "holding", "live")}
    hold_id = await books.held(payers["old"], USD // 2)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "0.25")])
    await books.held(payers["holding"], USD // 2)
    for name, at in (("old", OLD), ("young", YOUNG), ("holding", OLD)):
        await owner.execute(f"UPDATE credentials SET revoked_at = {at} WHERE account_id = $1", name)
    store = HistoryStore(books.pool)
    assert await store.forget_records(DAYS, 1_000) == 1
    left = await owner.fetch("SELECT account_id FROM credentials ORDER BY account_id")
    assert [row["account_id"] for row in left] == ["holding", "live", "young"]
    assert await books.funds("old") == (3 * USD // 4, 0, 0)
    used = await owner.fetchval("SELECT credential_id FROM usage_records")
    assert used == payers["old"].credential_id
    assert (await books.verified()).is_ok


async def test_audit_lines_go_in_batches_but_those_that_security_needs(
    books: Books, owner: "Owner"
) -> None:
    payer = await books.payer("ada", USD)
    for number in range(5):
        await line(owner, "user.changed", f"user:{number}", OLD)
    await line(owner, "key.suspended", f"key:{payer.credential_id}", OLD)
    await line(owner, "key.suspended", "key:gone", OLD)
    await line(owner, "user.changed", "user:young", YOUNG)
    store = HistoryStore(books.pool)
    assert [await store.forget_records(DAYS, 4) for _ in range(3)] == [4, 2, 0]
    left = await owner.fetch("SELECT subject FROM audit_log ORDER BY id")
    assert [row["subject"] for row in left if row["subject"] != "user:ada"] == [
        f"key:{payer.credential_id}",
        "user:young",
    ]


async def test_nobody_deletes_young_lines_or_in_another_way(books: Books, owner: "Owner") -> None:
    await line(owner, "user.changed", "user:1", "clock_timestamp() - interval '89 days'")
    assert await HistoryStore(books.pool).forget_records(1, 1_000) == 0
    for statement in ("DELETE FROM audit_log", "UPDATE audit_log SET actor = 'b'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await books.pool.execute(statement)


async def test_conflicts_of_a_hold_are_bounded_and_go_with_age(
    books: Books, owner: "Owner"
) -> None:
    settlements = PostgresSettlementStore(books.pool)
    unknown, other = uuid.uuid4(), uuid.uuid4()
    for _ in range(MOST_CONFLICTS + 3):
        await settlements.settle([observed(unknown)])
    await settlements.settle([observed(other)])
    assert len(await books.conflicts()) == MOST_CONFLICTS + 1
    await owner.execute(
        f"UPDATE settlement_conflicts SET recorded_at = {OLD} WHERE hold_id = $1", unknown
    )
    assert await HistoryStore(books.pool).forget_records(DAYS, 1_000) == MOST_CONFLICTS
    assert len(await books.conflicts()) == 1
