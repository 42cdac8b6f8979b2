"""Credit that expires: what is spent first, what expires, and what open holds keep."""

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter.clock import ManualClock, SystemClock
from meter.holds.hold import HoldPlaced
from meter.ledger.credit_store import LedgerStore
from meter.ledger.lots import ACCOUNTS_AT_ONCE, CreditExpiry, LotStore
from meter.ledger.postings import credit
from meter.postgres.pool import PostgresConnection
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, Payer, observed, without_protection
from tests.credit_lots import LotWorld, pass_time
from tests.meter_api import ADMIN, MeterApi
from tests.servers import Database

STEPS = 120
REPLACED = "SELECT replace(pg_get_functiondef($1::regproc), $2, $3)"


async def give(books: Books, payer: Payer, usd: int, hours: float) -> uuid.UUID:
    """Give credit that expires after some hours; returns the id of its lot."""
    expires_at = datetime.now(UTC) + timedelta(hours=hours)
    posting = credit(payer.account_id, f"{usd} for {hours}", usd * USD, "a grant", expires_at)
    await LedgerStore(books.pool).post_credit(posting)
    return posting.id


async def left(books: Books, account_id: str = "ada") -> list[int]:
    """The rest of each lot of an account in whole dollars, the earliest expiry first."""
    found = await LotStore(books.pool).get_open(account_id)
    assert found.expiring_picos == sum(lot.remaining_picos for lot in found.lots)
    return [lot.remaining_picos // USD for lot in found.lots]


async def expire(books: Books, account_id: str = "ada") -> int:
    """Take what has expired; returns how many whole dollars."""
    return await LotStore(books.pool).expire(account_id, SystemClock().now()) // USD


async def assert_whole(books: Books) -> None:
    """Demand books without a contradiction."""
    found = await books.verified()
    assert found.is_ok, found.failures


@pytest.mark.parametrize("seed", range(3))
async def test_random_steps_lead_where_the_rules_lead(
    books: Books, owner: PostgresConnection, seed: int
) -> None:
    world = LotWorld(books, owner, await books.payer("ada", 0), random.Random(seed))
    for _ in range(STEPS):
        await world.step()
    # The payments of this world have no rows of Stripe.
    found = await books.verified()
    assert {failure.invariant for failure in found.failures} <= {"payments"}, found.failures


@pytest.mark.parametrize(
    ("function", "rule", "fault"),
    [
        ("take_from_lots", "AND l.expires_at > placed", ""),
        ("take_from_lots", "ORDER BY l.expires_at,", "ORDER BY l.expires_at DESC,"),
        ("expirable_lots", "h.created_at < lot.expires_at", "false"),
        ("place_holds", "AND (a.next_expiry <= placed_at) IS NOT TRUE", ""),
        ("settle_lots", "WHEN a.next_expiry <= clock_timestamp()", "WHEN false"),
    ],
)
async def test_a_rule_that_is_missing_in_the_database_is_noticed(
    books: Books, owner: PostgresConnection, function: str, rule: str, fault: str
) -> None:
    body = await owner.fetchval(REPLACED, function, rule, fault)
    assert body != await owner.fetchval(REPLACED, function, "", "")
    await owner.execute(body)
    for seed in range(10):
        payer = await books.payer(f"ada-{seed}", 0)
        world = LotWorld(books, owner, payer, random.Random(seed))
        try:
            for _ in range(STEPS):
                await world.step()
        except (AssertionError, asyncpg.PostgresError):
            return
    pytest.fail("no step differs from the rules")


async def test_the_earliest_expiry_is_spent_first_and_bought_credit_last(books: Books) -> None:
    payer = await books.payer("ada", 5 * USD)
    await give(books, payer, 3, 48)
    await give(books, payer, 2, 24)
    settlements = PostgresSettlementStore(books.pool)
    for cost, still_left in ((1, [1, 3]), (2, [2]), (3, [])):
        hold_id = await books.held(payer, cost * USD)
        await settlements.settle([observed(hold_id, str(cost))])
        assert await left(books) == still_left
    assert await books.funds("ada") == (4 * USD, 0, 0)
    mark = await books.pool.fetchval("SELECT next_expiry FROM accounts WHERE id = 'ada'")
    assert mark is None
    await assert_whole(books)


async def test_what_expired_is_not_available_however_late_its_posting_is(
    books: Books, owner: PostgresConnection
) -> None:
    payer = await books.payer("ada", 1 * USD)
    await give(books, payer, 5, 24)
    await pass_time(owner, 24 * 4)
    assert await books.holds.find_available("ada") == 1 * USD
    refused = await books.holds.place(books.request(payer, 2 * USD))
    assert not isinstance(refused, HoldPlaced)
    assert refused.available_picos == 1 * USD
    hold_id = await books.held(payer, 1 * USD)
    # A hold that was placed after the expiry is paid by the rest, although the lot is still there.
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "1")])
    assert await left(books) == [5]
    assert await expire(books) == 5
    assert await books.funds("ada") == (0, 0, 0)
    await assert_whole(books)


async def test_expiry_leaves_what_an_open_hold_may_use_and_takes_the_rest_later(
    books: Books, owner: PostgresConnection
) -> None:
    payer = await books.payer("ada", 0)
    await give(books, payer, 10, 24)
    first, second = [await books.held(payer, 4 * USD) for _ in range(2)]
    await pass_time(owner, 25)
    assert await expire(books) == 2
    assert await expire(books) == 0
    assert await books.funds("ada") == (8 * USD, 8 * USD, 0)
    # New credit is available although the old holds are open.
    await give(books, payer, 6, 24)
    assert await books.holds.find_available("ada") == 6 * USD
    await PostgresSettlementStore(books.pool).settle([observed(first, "1")])
    assert await left(books) == [7, 6]
    assert await expire(books) == 3
    await books.holds.release([second])
    assert await expire(books) == 4
    assert await books.funds("ada") == (6 * USD, 0, 0)
    assert await left(books) == [6]
    await assert_whole(books)


async def test_a_correction_gives_back_to_the_lot_or_for_ever_if_that_expired(
    books: Books, owner: PostgresConnection
) -> None:
    payer = await books.payer("ada", 0)
    await give(books, payer, 9, 24)
    await give(books, payer, 9, 48)
    holds = [await books.held(payer, 4 * USD) for _ in range(2)]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(one, "4") for one in holds])
    assert await left(books) == [1, 9]
    truth = [observed(one, "1", source=Source.LOOKUP) for one in holds]
    await settlements.settle(truth[:1])
    assert await left(books) == [4, 9]
    await pass_time(owner, 25)
    await settlements.settle(truth[1:])
    assert await expire(books) == 4
    assert await left(books) == [9]
    assert (await books.funds("ada"))[0] == 12 * USD
    await assert_whole(books)


async def test_settlements_and_expiry_at_once_take_each_dollar_once(
    books: Books, owner: PostgresConnection
) -> None:
    payer = await books.payer("ada", 0)
    await give(books, payer, 40, 24)
    await give(books, payer, 40, 48)
    holds = [await books.held(payer, 2 * USD) for _ in range(20)]
    await pass_time(owner, 25)
    stores = [PostgresSettlementStore(books.pool) for _ in range(4)]
    settling = [
        stores[number % 4].settle([observed(hold_id, "1")]) for number, hold_id in enumerate(holds)
    ]
    taken = await asyncio.gather(*(expire(books) for _ in range(10)), *settling)
    total = sum(one for one in taken if isinstance(one, int)) + await expire(books)
    # Of the first lot 20 dollars were spent, by holds that were placed before it expired.
    assert total == 20
    assert await books.funds("ada") == (40 * USD, 0, 0)
    assert await left(books) == [40]
    await assert_whole(books)


async def test_many_accounts_expire_in_turns_and_a_late_task_alarms(
    books: Books, owner: PostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.ledger.lots.ACCOUNTS_AT_ONCE", 2)
    assert ACCOUNTS_AT_ONCE > 2
    registry = CollectorRegistry()
    # The clock of this machine is three days late, so nothing is due by it.
    clock = ManualClock(datetime.now(UTC) - timedelta(days=3))
    work = CreditExpiry(LotStore(books.pool), clock, registry)
    payers = [await books.payer(f"user-{number}", 0) for number in range(5)]
    for payer in payers:
        await give(books, payer, 1, 24)
    # The holds of the first accounts are open, and must not keep the others waiting.
    for payer in payers[:2]:
        await books.held(payer, USD)
    await pass_time(owner, 25)
    assert await work.look() is None
    assert registry.get_sample_value("tollkeeper_expired_credit_picos_total") == 0
    clock.advance(3 * 24 * 3600)
    with capture_logs() as logs:
        pauses = [await work.look() for _ in range(3)]
    assert [pause is None for pause in pauses] == [False, False, True]
    assert [one["event"] for one in logs] == ["credit_expired"] * 3
    assert registry.get_sample_value("tollkeeper_expired_credit_picos_total") == 3 * USD
    await pass_time(owner, 2)
    with capture_logs() as logs:
        assert await work.look() is not None
        assert await work.look() is None
        assert await work.look() is not None
        assert await work.look() is None
    (alarm,) = [one for one in logs if one["log_level"] == "error"]
    assert (alarm["event"], alarm["age_s"] > 7_200) == ("credit_expiry_late", True)
    await assert_whole(books)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE credit_lots SET remaining_picos = amount_picos - expired_picos",
        "UPDATE credit_lots SET expired_picos = 0",
        "UPDATE accounts SET next_expiry = NULL",
        "UPDATE lot_expiries SET amount_picos = amount_picos + 1",
        "DELETE FROM credit_lots WHERE remaining_picos > 0",
    ],
)
async def test_verification_finds_edited_lots(
    books: Books, owner: PostgresConnection, database: Database, edit: str
) -> None:
    payer = await books.payer("ada", 0)
    await give(books, payer, 3, 24)
    await give(books, payer, 3, 48)
    hold_id = await books.held(payer, 1 * USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, "1")])
    await pass_time(owner, 25)
    assert await expire(books) == 2
    await assert_whole(books)
    await owner.execute("ALTER TABLE lot_expiries DISABLE TRIGGER USER")
    await without_protection(database, edit)
    found = await books.verified()
    assert [failure.invariant for failure in found.failures] == ["lots"]


async def test_credit_with_an_expiry_by_api(api: MeterApi, books: Books) -> None:
    await api.user("ada", "5.00")
    path = f"{ADMIN}/users/ada/credits"
    body = {"amount": "3.00", "reason": "sorry", "expires_at": "2999-01-31T00:00:00Z"}
    headers = {"Idempotency-Key": "sorry-1"}
    posted = await api.operator.post(path, json=body, headers=headers)
    assert (posted.status_code, posted.json()["expires_at"]) == (201, body["expires_at"])
    again = await api.operator.post(path, json=body, headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = {**body, "expires_at": "2999-02-28T00:00:00Z"}
    assert (await api.operator.post(path, json=other, headers=headers)).status_code == 409
    shown = (await api.operator.get(f"{path}/lots")).json()
    key = (await api.key("ada"))["key"]
    assert (await api.as_key(key, "/api/v1/credits/lots")).json() == shown
    (lot,) = shown["data"]
    assert shown["expiring"] == lot["remaining"] == lot["amount"] == "3.00"
    assert (lot["reason"], lot["expires_at"]) == ("sorry", body["expires_at"])
    for wrong, code in (
        ({"expires_at": "2001-01-31T00:00:00Z"}, "invalid_request"),
        ({"amount": "-1.00"}, "invalid_amount"),
    ):
        refused = await api.operator.post(
            path, json={**body, **wrong}, headers={"Idempotency-Key": "wrong"}
        )
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert (await api.operator.get(f"{ADMIN}/users/nobody/credits/lots")).status_code == 404
    await assert_whole(books)
