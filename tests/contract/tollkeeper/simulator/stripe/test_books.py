"""The books of the Stripe simulator agree with its balance and its objects, whatever happens."""

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.stripe_simulator import Stripe, stripe_running

CARDS = (
    "pm_card_visa",
    "pm_card_createDispute",
    "pm_card_pendingRefund",
    "pm_card_refundFail",
    "pm_card_chargeDeclined",
)
SIGNS = {
    "paid": 1,
    "refunded": -1,
    "refund_failed": 1,
    "dispute_withdrawn": -1,
    "dispute_reinstated": 1,
}


@pytest.fixture
async def shop() -> AsyncIterator[Stripe]:
    async with stripe_running(webhook_url=None) as running:
        yield running


async def step(shop: Stripe, chance: random.Random, customers: list[str]) -> None:
    """Pay, refund, dispute or contest; what the simulator refuses is no matter."""
    paid = (await shop.v1.charges.list_async({"limit": 20})).data
    open_disputes = [
        one for one in (await shop.v1.disputes.list_async()).data if one.status == "needs_response"
    ]
    move = chance.choice(("pay", "pay", "refund", "dispute", "contest", "accept", "wait"))
    if move == "pay":
        await shop.v1.payment_intents.create_async(
            {
                "amount": chance.randint(50, 9_999),
                "currency": "usd",
                "customer": chance.choice(customers),
                "payment_method": chance.choice(CARDS),
                "payment_method_types": ["card"],
                "confirm": True,
            }
        )
    elif move == "refund" and paid:
        charge = chance.choice(paid)
        amount = chance.randint(1, charge.amount)
        await shop.v1.refunds.create_async({"charge": charge.id, "amount": amount})
    elif move == "dispute" and paid:
        body = {"charge": chance.choice(paid).id}
        await shop.browser.post(f"{shop.url}/control/disputes", json=body)
    elif move == "contest" and open_disputes:
        text = chance.choice(("winning_evidence", "losing_evidence"))
        await shop.v1.disputes.update_async(
            chance.choice(open_disputes).id, {"evidence": {"uncategorized_text": text}}
        )
    elif move == "accept" and open_disputes:
        await shop.v1.disputes.close_async(chance.choice(open_disputes).id)
    elif move == "wait":
        await shop.control("POST", "clock", seconds=chance.randint(0, 3 * 86_400))


@pytest.mark.parametrize("seed", range(4))
async def test_the_books_agree_with_the_balance(shop: Stripe, seed: int) -> None:
    chance = random.Random(seed)
    customers = [(await shop.v1.customers.create_async()).id for _ in range(3)]
    for _ in range(60):
        with contextlib.suppress(stripe.CardError, stripe.InvalidRequestError):
            await step(shop, chance, customers)
    books = await shop.control("GET", "books")
    booked = sum(SIGNS[row["movement"]] * row["amount"] for row in books["rows"])
    moves = await shop.v1.balance_transactions.list_async({"limit": 100})
    in_balance = [move async for move in moves.auto_paging_iter()]
    assert len(in_balance) > 10
    assert booked == sum(move.amount for move in in_balance)
    assert all(move.net == move.amount - move.fee for move in in_balance)
    for customer in customers:
        sums: dict[str, Any] = books["customers"].get(customer, dict.fromkeys(SIGNS, 0))
        charges = await shop.v1.charges.list_async({"customer": customer, "limit": 100})
        paid = [charge for charge in charges.data if charge.paid]
        assert sums["paid"] == sum(charge.amount for charge in paid)
        refunded = sum(charge.amount_refunded for charge in paid)
        assert sums["refunded"] - sums["refund_failed"] == refunded
        assert all(charge.amount_refunded <= charge.amount for charge in paid)
