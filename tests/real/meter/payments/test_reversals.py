"""Refunds and disputes take credit back once, below zero if need be, and then nothing is held."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from meter.audit.events import SYSTEM
from meter.holds.hold import HoldPlaced
from meter.ledger.write_offs import WriteOffStore
from meter.payments.payment_store import PaymentStore, ReversalKind
from meter.payments.purchase import Payment, PurchaseKind
from meter.payments.purchase_store import PurchaseStore
from meter.payments.stripe_facts import PaymentFacts, PaymentState
from meter.settlement.settlement_store import PostgresSettlementStore
from tests.books import USD, Books, Payer, observed


async def paid(books: Books, payer: Payer, cents: int, bought_cents: int | None = None) -> Payment:
    """A payment that became credit."""
    purchases, payments = PurchaseStore(books.pool), PaymentStore(books.pool)
    picos = (bought_cents or cents) * 10**10
    purchase = await purchases.open_purchase(
        uuid4(), payer.account_id, PurchaseKind.CHECKOUT, False, picos, False, SYSTEM
    )
    facts = PaymentFacts(
        id=f"pi_{uuid4().hex}",
        purchase_id=purchase.id,
        state=PaymentState.SUCCEEDED,
        currency="usd",
        received_cents=cents,
        paid_at=datetime.now(UTC),
        receipt_url=None,
        customer_id=None,
        payment_method_id=None,
        is_live=False,
    )
    done = await asyncio.gather(*(payments.credit(purchase, facts, picos) for _ in range(8)))
    assert sum(done) == 1
    return await payments.get(facts.id)


async def test_a_payment_becomes_credit_once_however_many_fulfil_it(books: Books) -> None:
    payer = await books.payer("ada", 0)
    await paid(books, payer, 2_500)
    assert await books.funds("ada") == (25 * USD, 0, 0)
    assert (await books.verified()).is_ok


async def test_a_refund_of_spent_credit_blocks_the_account_and_is_never_written_off(
    books: Books,
) -> None:
    payer = await books.payer("ada", 0)
    payment = await paid(books, payer, 1_000)
    hold = await books.held(payer, 9 * USD)
    await PostgresSettlementStore(books.pool).settle([observed(hold, "9")])
    payments, write_offs = PaymentStore(books.pool), WriteOffStore(books.pool)
    done = await asyncio.gather(
        *(payments.reverse(payment, ReversalKind.REFUND, "re_1", 1_000) for _ in range(8))
    )
    assert sorted(done) == [-10 * USD, 0, 0, 0, 0, 0, 0, 0]
    assert await books.funds("ada") == (-9 * USD, 0, 9 * USD)
    assert await write_offs.write_off_debts() == []
    for picos in (0, 1, USD):
        assert not isinstance(await books.holds.place(books.request(payer, picos)), HoldPlaced)
    verification = await books.verified()
    assert verification.is_ok, verification.failures
    # Paying the debt and some more opens the account again.
    await paid(books, payer, 1_000)
    assert await books.funds("ada") == (USD, 0, 0)
    await books.held(payer, USD)
    assert (await books.verified()).is_ok


async def test_debt_of_holds_that_settle_after_a_refund_stays_owed(books: Books) -> None:
    payer = await books.payer("ada", 0)
    payment = await paid(books, payer, 1_000)
    hold, released = await books.held(payer, 5 * USD), await books.held(payer, 2 * USD)
    await PaymentStore(books.pool).reverse(payment, ReversalKind.REFUND, "re_1", 1_000)
    assert await books.funds("ada") == (0, 7 * USD, 7 * USD)
    store, write_offs = PostgresSettlementStore(books.pool), WriteOffStore(books.pool)
    await store.settle([observed(hold, "6")])
    await store.settle([observed(released, "0.5")])
    # One dollar beyond the hold is the house's; what the refund took from under it is not.
    assert await books.funds("ada") == (-13 * USD // 2, 0, 13 * USD // 2)
    assert await write_offs.write_off_debts() == []
    verification = await books.verified()
    assert verification.is_ok, verification.failures


async def test_excess_beside_the_debt_of_a_refund_is_written_off_alone(books: Books) -> None:
    payer = await books.payer("ada", 0)
    payment = await paid(books, payer, 1_000)
    hold = await books.held(payer, 10 * USD)
    await PaymentStore(books.pool).reverse(payment, ReversalKind.REFUND, "re_1", 1_000)
    await PostgresSettlementStore(books.pool).settle([observed(hold, "13")])
    assert await WriteOffStore(books.pool).write_off_debts() == [("ada", 3 * USD)]
    assert await books.funds("ada") == (-10 * USD, 0, 10 * USD)
    assert await WriteOffStore(books.pool).write_off_debts() == []


async def test_a_refund_that_failed_and_a_dispute_that_was_won_give_credit_back(
    books: Books,
) -> None:
    payer = await books.payer("ada", 0)
    payment, payments = await paid(books, payer, 1_000), PaymentStore(books.pool)
    for kind, cause in (
        (ReversalKind.REFUND, "re_1"),
        (ReversalKind.REFUND_FAILED, "re_1"),
        (ReversalKind.DISPUTE_WITHDRAWN, "dp_1"),
        (ReversalKind.DISPUTE_REINSTATED, "dp_1"),
    ):
        for _ in range(2):
            await payments.reverse(payment, kind, cause, 400)
    assert await books.funds("ada") == (10 * USD, 0, 0)
    assert (await payments.get(payment.id)).reversed_picos == 0
    assert [one.amount_picos for one in await payments.list_reversals(payment.id)] == [
        -4 * USD,
        4 * USD,
        -4 * USD,
        4 * USD,
    ]


@pytest.mark.parametrize("parts", [[1_190], [595, 595], [1, 400, 789]])
async def test_refunds_of_a_taxed_payment_take_what_was_bought(
    books: Books, parts: list[int]
) -> None:
    payer = await books.payer("ada", 0)
    payment, payments = await paid(books, payer, 1_190, 1_000), PaymentStore(books.pool)
    for number, cents in enumerate(parts):
        await payments.reverse(payment, ReversalKind.REFUND, f"re_{number}", cents)
    balance, _, _ = await books.funds("ada")
    # Each part rounds down by less than a pico-dollar.
    assert 0 <= balance < len(parts)
