"""Parts die while nothing runs: clear answers meanwhile, recovery without help, nothing lost.

The supervisor is held still during an outage, so that it lasts as long as the test looks at it.
"""

import contextlib
import time
from collections.abc import Iterator
from decimal import Decimal

import psutil
import pytest

from tests.e2e.desk import Customer, Desk
from tests.e2e.raw_http import Reply
from tests.e2e.running_stack import wait_until

# The kernel closes the sockets of a dead process one by one, and their other ends notice later. A
# request on a connection that is just being lost may have been read: its outcome is unknown.
CONNECTIONS_LOST_S = 0.3


@contextlib.contextmanager
def without(desk: Desk, name: str) -> Iterator[None]:
    """The component is dead inside the block; afterwards it has come back of its own accord."""
    restarts = desk.stack.component(name)["restarts"]
    process = psutil.Process(desk.stack.component(name)["pid"])
    supervisor = psutil.Process(desk.stack.supervisor_pid)
    supervisor.suspend()
    try:
        wait_until(lambda: supervisor.status() == psutil.STATUS_STOPPED, "nobody restarts it")
        process.kill()
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE, f"{name} is dead")
        time.sleep(CONNECTIONS_LOST_S)
        yield
    finally:
        supervisor.resume()
        desk.stack.wait_restarted(name, restarts)
        desk.wait_well()


def check_paid(desk: Desk, customer: Customer, *replies: Reply) -> None:
    """Every answer is settled at what the provider billed, and nothing else has moved."""
    desk.wait_settled(customer)
    identities = [reply.headers["x-generation-id"] for reply in replies]
    costs = {one: Decimal(desk.bill_row(one).cost) for one in identities}
    assert {name: Decimal(cost) for name, cost in desk.usage(customer).items()} == costs
    funds = desk.credits(customer)
    assert funds["balance"] == funds["available"] == 5 - sum(costs.values())
    desk.check_ledger()


def served(desk: Desk, customer: Customer) -> Reply:
    """An answer, once requests are served again."""
    found: list[Reply] = []

    def is_served() -> bool:
        with contextlib.suppress(OSError):
            found.append(desk.ask(customer))
        return bool(found) and found[-1].status == 200

    wait_until(is_served, "requests are served again")
    return found[-1]


@pytest.mark.parametrize("name", ["authz", "postgres"])
def test_without_it_every_request_is_a_clear_503(desk: Desk, name: str) -> None:
    """The same for a key that is known and one that is not: nobody can tell them apart now."""
    customer, stranger = desk.open_account(), desk.open_account()
    before = desk.ask(customer)
    received, billed = desk.received()["count"], len(desk.bill())
    with without(desk, name):
        replies = [desk.ask(one) for one in (customer, stranger, customer)]
        for reply in replies:
            assert reply.status == 503
            assert reply.error["code"] == "unavailable"
            assert reply.error["type"] == "service_unavailable"
            assert int(reply.headers["retry-after"]) >= 1
        assert desk.received()["count"] == received
    assert len(desk.bill()) == billed
    check_paid(desk, customer, before, served(desk, customer))
    assert desk.hold_states(stranger) == {}


def test_without_redis_everything_works_but_the_precision_of_limits(desk: Desk) -> None:
    customer = desk.open_account()
    replies = [desk.ask(customer)]
    with without(desk, "redis"):
        replies += [desk.ask(customer) for _ in range(3)]
    replies += [desk.ask(customer)]
    assert [reply.status for reply in replies] == [200] * 5
    check_paid(desk, customer, *replies)


def test_without_the_meter_requests_are_answered_and_held(desk: Desk) -> None:
    """The access log has nobody to tell; the holds stay until somebody is told."""
    customer = desk.open_account()
    before = desk.ask(customer)
    desk.wait_settled(customer)
    with without(desk, "meter"):
        meanwhile = desk.ask(customer)
        assert meanwhile.status == 200
        models = desk.ask(customer, path="/v1/models")
        assert models.status in (404, 503)
    after = desk.ask(customer)
    answered = {before.headers["x-generation-id"], after.headers["x-generation-id"]}
    # The file may settle the request of meanwhile before the stream settles the later one.
    wait_until(lambda: answered <= set(desk.usage(customer)), "the later request is settled")
    usage = desk.usage(customer)
    costs = {row.generation_id: row.cost for row in desk.bill()}
    assert all(Decimal(cost) == Decimal(costs[one]) for one, cost in usage.items())
    states = desk.hold_states(customer)
    assert sum(states.values()) == 3
    if meanwhile.headers["x-generation-id"] not in usage:
        assert states == {"settled": 2, "open": 1}
        assert desk.credits(customer)["held"] > 0
    desk.check_ledger()


def test_without_envoy_nobody_gets_in(desk: Desk) -> None:
    customer = desk.open_account()
    before = desk.ask(customer)
    desk.wait_settled(customer)
    received = desk.received()["count"]
    with without(desk, "envoy"):
        with pytest.raises(ConnectionRefusedError):
            desk.ask(customer)
        assert desk.received()["count"] == received
    check_paid(desk, customer, before, desk.ask(customer))


def test_without_the_provider_holds_are_released(desk: Desk) -> None:
    customer = desk.open_account()
    before = desk.ask(customer)
    with without(desk, "simulator"):
        reply = desk.ask(customer)
        assert reply.status == 503
        assert reply.error["code"] == "provider_unavailable"
        desk.wait_settled(customer)
        assert desk.hold_states(customer) == {"settled": 1, "released": 1}
        assert desk.credits(customer)["held"] == 0
    check_paid(desk, customer, before, served(desk, customer))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [401, 402])
def test_a_refusal_of_our_account_is_ours_to_answer_for(
    desk: Desk, status: int, stream: bool
) -> None:
    customer = desk.open_account()
    told = {"error": {"message": "Insufficient credits, sk-or-secret", "code": status}}
    desk.misbehave(status=status, error_body=told, times=1)
    reply = desk.ask(customer, stream=stream)
    assert reply.status == 503
    assert reply.error["code"] == "provider_unavailable"
    assert b"sk-or-" not in reply.body
    check_released(desk, customer)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_other_refusals_of_the_provider_pass(desk: Desk, status: int, stream: bool) -> None:
    customer = desk.open_account()
    told = {"error": {"message": "Not now", "code": status}}
    desk.misbehave(status=status, error_body=told, times=1)
    reply = desk.ask(customer, stream=stream)
    assert reply.status == status
    assert reply.json() == told
    check_released(desk, customer)


def check_released(desk: Desk, customer: Customer) -> None:
    """The hold has ended without a charge, and the next request is served."""
    desk.wait_settled(customer)
    assert desk.hold_states(customer) == {"released": 1}
    assert desk.credits(customer)["available"] == 5
    check_paid(desk, customer, desk.ask(customer))
