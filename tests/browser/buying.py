"""A person buys credit in a real browser, spends it, and a refund and a dispute take it back."""

import asyncio
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.browser.chromium import MISSING, Browser, browsing, find_chromium
from tests.e2e.admin import Admin, Customer
from tests.e2e.raw_http import send_json
from tests.e2e.running_stack import RunningStack, fresh_environment, wait_until
from tollkeeper.stack.servers.ports import free_port

VISA = "4242424242424242"
DECLINED = "4000000000000002"
DISPUTED = "4000000000000259"


@pytest.fixture(scope="module")
def admin() -> Iterator[Admin]:
    """A stack that sells through Stripe's simulator."""
    assert find_chromium() is not None, MISSING
    with tempfile.TemporaryDirectory(prefix="tk-buy-", dir="/tmp") as folder:
        environment = fresh_environment(Path(folder), free_port(), free_port())
        environment["TOLLKEEPER_STRIPE_SIMULATOR"] = "true"
        stack = RunningStack(Path(folder), environment)
        stack.up()
        try:
            yield Admin(stack)
        finally:
            stack.down()


def balance(admin: Admin, customer: Customer) -> Decimal:
    """Return the balance of the customer."""
    return admin.credits(customer)["balance"]


async def buy(browser: Browser, admin: Admin, customer: Customer, amount: str, *cards: str) -> None:
    """Buy on the pages, with one card after the other until one is taken."""
    await browser.open(f"{admin.stack.gateway}/api/v1/billing/buy")
    assert "Test mode: no money moves" in await browser.text()
    await browser.type("input[name=key]", customer.key)
    await browser.type("input[name=amount]", amount)
    await browser.click("button")
    for number, card in enumerate(cards):
        await browser.wait_for("!!document.querySelector('select[name=card_number]')", "Checkout")
        if number:
            await browser.wait_for("!!document.querySelector('.error')", "the card is declined")
            assert "declined" in await browser.text()
        await browser.choose("select[name=card_number]", card)
        await browser.click("button")
    await browser.wait_for("document.title === 'Thank you'", "the customer is thanked")
    assert "your credit is there" in await browser.text()


def test_a_person_buys_credit_spends_it_and_it_is_taken_back(admin: Admin) -> None:
    scopes = ["inference", "usage:read", "billing:write"]
    customer = admin.open_account(None, {"scopes": scopes})
    refused = admin.ask(customer)
    assert refused.status == 402
    assert f"{admin.stack.gateway}/api/v1/billing/buy" in refused.json()["error"]["message"]

    async def shop() -> None:
        with tempfile.TemporaryDirectory(prefix="tk-chromium-", dir="/tmp") as folder:
            async with browsing(Path(folder)) as browser:
                await buy(browser, admin, customer, "5.00", DECLINED, VISA)
                assert balance(admin, customer) == Decimal("5.00")
                await buy(browser, admin, customer, "7.00", DISPUTED)

    asyncio.run(shop())
    # The dispute comes a moment after its payment, and takes it back.
    wait_until(lambda: balance(admin, customer) == Decimal("5.00"), "the dispute took 7 USD")
    assert admin.ask(customer).status == 200
    wait_until(lambda: balance(admin, customer) < Decimal("5.00"), "the request is charged")
    spent = Decimal("5.00") - balance(admin, customer)
    rows = admin.call("GET", f"payments?user_id={customer.id}")["data"]
    (payment,) = (one for one in rows if one["paid"] == "5.00")
    admin.call("POST", f"payments/{payment['id']}/refunds", {}, Idempotency_Key="back")
    assert balance(admin, customer) == -spent
    assert admin.ask(customer).status == 402
    books = send_json(admin.stack.endpoints["stripe"], "GET", "/control/books").json()
    sums = [one for one in books["customers"].values() if one["paid"]]
    assert [(one["paid"], one["refunded"], one["dispute_withdrawn"]) for one in sums] == [
        (1200, 500, 700)
    ]
    assert admin.call("GET", "ledger/verification")["ok"]
