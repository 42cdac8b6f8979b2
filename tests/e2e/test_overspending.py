"""Accounts spend no more than they have, however many ask at once."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from decimal import Decimal

import asyncpg

from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.crowd import Request, send_all
from tests.servers import run_in_thread

AT_ONCE = 200
POLL_INTERVAL_S = 0.005
# Long enough for everybody to ask while the only hold is open.
SLOW_ANSWER_MS = 300
NEEDED = re.compile(r"may cost up to ([0-9.]+) USD")


def open_for_exactly_one(admin: Admin) -> tuple[Customer, Decimal]:
    """An account with the credit that one request needs, as the refusal says it."""
    customer = admin.open_account(None)
    refused = admin.ask(customer)
    assert refused.status == 402
    needed = NEEDED.search(refused.error["message"])
    assert needed is not None
    admin.give(customer.id, needed[1])
    return customer, Decimal(needed[1])


@contextlib.contextmanager
def watching(admin: Admin, customer: Customer) -> Iterator[list[int]]:
    """The available amounts at every look while the block runs, in pico-dollars."""
    seen, is_over = list[int](), threading.Event()

    async def look() -> None:
        connection = await asyncpg.connect(admin.dsn)
        while not is_over.is_set():
            seen.append(
                await connection.fetchval(
                    "SELECT balance_picos - held_picos FROM accounts WHERE id = $1", customer.id
                )
            )
            await asyncio.sleep(POLL_INTERVAL_S)
        await connection.close()

    looking = threading.Thread(target=lambda: asyncio.run(look()))
    looking.start()
    try:
        yield seen
    finally:
        is_over.set()
        looking.join()


def test_of_two_hundred_only_the_one_that_is_covered_goes_up(admin: Admin) -> None:
    customer, credit = open_for_exactly_one(admin)
    billed, received = len(admin.bill()), admin.received()["count"]
    admin.misbehave(delay_ms=SLOW_ANSWER_MS, times=1)
    with watching(admin, customer) as available:
        crowd = [Request(customer, "/v1/chat/completions", chat())] * AT_ONCE
        outcomes = run_in_thread(lambda: send_all(admin.stack.gateway, crowd, AT_ONCE))
        admin.wait_settled(customer)

    assert sorted(one.status for one in outcomes) == [200] + [402] * (AT_ONCE - 1)
    refused = [one.body for one in outcomes if one.status == 402]
    assert all(b'"insufficient_credits"' in body for body in refused)
    assert admin.received()["count"] == received + 1
    (row,) = admin.bill()[billed:]
    assert len(available) > 10
    assert min(available) == 0
    assert admin.hold_states(customer) == {"settled": 1}
    assert admin.usage(customer) == {row.generation_id: row.cost}
    left = admin.credits(customer)
    assert left["balance"] == left["available"] == credit - Decimal(row.cost)
    assert left["held"] == left["overdrawn"] == 0
    admin.check_ledger()


def test_a_request_for_less_than_the_rest_is_let_in_again(admin: Admin) -> None:
    """The 402 was about the amount, not about the account."""
    customer, _ = open_for_exactly_one(admin)
    # A short answer leaves most of what was held; a long one might leave less than any other needs.
    admin.misbehave(completion_tokens=1, times=1)
    assert admin.ask(customer).status == 200
    admin.wait_settled(customer)
    assert admin.ask(customer).status == 402
    assert admin.ask(customer, max_tokens=1).status == 200
