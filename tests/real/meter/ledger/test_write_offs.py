"""The debt of an account is bounded by its limit, and the house bears what is beyond."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.ledger.verification_store import VerificationStore
from meter.ledger.write_offs import WriteOffs, WriteOffStore
from meter.money import format_usd
from meter.postgres.pool import PostgresConnection
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, Payer, observed
from tests.meter_api import MeterApi

ADMIN = "/api/v1/admin"


async def overspend(books: Books, account_id: str, requests: int, cost: str) -> Payer:
    """An account of one dollar whose parallel requests, all within it, bill so much each."""
    payer = await books.payer(account_id, USD)
    holds = [await books.held(payer, USD // requests) for _ in range(requests)]
    stores = [PostgresSettlementStore(books.pool) for _ in holds]
    await asyncio.gather(
        *(
            store.settle([observed(hold_id, cost)])
            for store, hold_id in zip(stores, holds, strict=True)
        )
    )
    await books.settle_parked()
    return payer


@pytest.mark.parametrize(
    ("max_debt", "left"), [("0", 0), ("2.50", -5 * USD // 2), ("50", -7 * USD)]
)
async def test_the_worst_balance_after_parallel_requests_is_the_limit(
    books: Books, api: MeterApi, max_debt: str, left: int
) -> None:
    store = WriteOffStore(books.pool)
    await overspend(books, "ada", 10, "0.8")
    assert await books.funds("ada") == (-7 * USD, 0, 7 * USD)
    reply = await api.operator.put(f"{ADMIN}/users/ada/max-debt", json={"max_debt": max_debt})
    assert reply.status_code == 200
    await store.write_off_debts()
    assert await books.funds("ada") == (left, 0, -left)
    assert await store.write_off_debts() == []
    found = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert found["ok"], found["failures"]
    assert found["charge_total"] == "8.00"
    assert found["excess_total"] == "7.00"
    listed = (await api.operator.get(f"{ADMIN}/write-offs")).json()["data"]
    assert [one["user_id"] for one in listed] == (["ada"] if left > -7 * USD else [])


async def test_what_is_written_off_is_listed_alarmed_and_drifts_in_no_book(
    books: Books, api: MeterApi
) -> None:
    registry = CollectorRegistry()
    await overspend(books, "ada", 2, "0.75")
    with capture_logs() as logs:
        work = WriteOffs(WriteOffStore(books.pool), registry)
        for _ in range(2):
            await work.look()
    (alarm,) = [one for one in logs if one["event"] == "debt_written_off"]
    assert (alarm["account_id"], alarm["amount"]) == ("ada", "0.50")
    assert registry.get_sample_value("tollkeeper_written_off_picos_total") == USD // 2
    (moved,) = (await api.operator.get(f"{ADMIN}/users/ada/transactions?limit=1")).json()["data"]
    assert (moved["type"], moved["amount"]) == ("write_off", "0.50")
    report = (await api.operator.post(f"{ADMIN}/reconciliations")).json()
    assert all(book["drift"] == "0.00" for book in report["books"]), report


async def test_nothing_is_written_off_while_a_hold_is_open(books: Books) -> None:
    payer = await books.payer("ada", USD)
    first, second = [await books.held(payer, USD // 2) for _ in range(2)]
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(first, "2")])
    store = WriteOffStore(books.pool)
    assert await store.write_off_debts() == []
    await settlements.settle([observed(second, "0.1")])
    assert await store.write_off_debts() == [("ada", 11 * USD // 10)]


@pytest.mark.parametrize(
    ("max_debt", "truth", "left", "taken"),
    [
        # The request cost less than the debt: the house has a part back.
        ("0", "2", 0, USD),
        # It cost less than the credit: the house has all back, and the account the rest.
        ("0", "0.25", 3 * USD // 4, 2 * USD),
        # The account owes up to its limit whatever the house has back.
        ("0.5", "2", -USD // 2, USD),
        ("0.5", "1.25", -USD // 4, 3 * USD // 2),
    ],
)
async def test_a_correction_gives_no_credit_that_the_house_paid(
    books: Books, api: MeterApi, max_debt: str, truth: str, left: int, taken: int
) -> None:
    payer = await books.payer("ada", USD)
    await api.operator.put(f"{ADMIN}/users/ada/max-debt", json={"max_debt": max_debt})
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(hold_id, "3")])
    await WriteOffStore(books.pool).write_off_debts()
    await settlements.settle([observed(hold_id, truth, source=Source.LOOKUP)])
    assert await books.funds("ada") == (left, 0, max(0, -left))
    (listed,) = (await api.operator.get(f"{ADMIN}/write-offs")).json()["data"]
    assert listed["taken_back"] == format_usd(taken)
    found = (await api.operator.get(f"{ADMIN}/ledger/verification")).json()
    assert found["ok"], found["failures"]


async def test_a_refund_of_a_later_request_belongs_to_the_account(books: Books) -> None:
    payer = await overspend(books, "ada", 1, "3")
    await WriteOffStore(books.pool).write_off_debts()
    await LedgerStore(books.pool).post_credit(credit("ada", "second", USD, "test credit"))
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.settle([observed(hold_id, "1")])
    await settlements.settle([observed(hold_id, "0.25", source=Source.LOOKUP)])
    assert await books.funds("ada") == (3 * USD // 4, 0, 0)


async def test_a_locked_account_is_passed_over(books: Books, owner: PostgresConnection) -> None:
    await overspend(books, "ada", 1, "3")
    await overspend(books, "bob", 1, "3")
    store = WriteOffStore(books.pool)
    async with owner.transaction():
        await owner.execute("SELECT 1 FROM accounts WHERE id = 'ada' FOR UPDATE")
        assert await store.write_off_debts() == [("bob", 2 * USD)]
    assert await store.write_off_debts() == [("ada", 2 * USD)]
    assert await VerificationStore(books.pool).verify() is not None


async def test_a_limit_is_zero_or_more_and_of_a_user(books: Books, api: MeterApi) -> None:
    await books.payer("ada", USD)
    path = f"{ADMIN}/users/{{}}/max-debt"
    assert (await api.operator.get(path.format("ada"))).json() == {"max_debt": "0.00"}
    refused = await api.operator.put(path.format("ada"), json={"max_debt": "-1"})
    assert refused.status_code == 422
    for reply in (
        await api.operator.get(path.format("nobody")),
        await api.operator.put(path.format("nobody"), json={"max_debt": "1"}),
    ):
        assert reply.status_code == 404
