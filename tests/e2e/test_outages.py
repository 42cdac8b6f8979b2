"""Parts die while nothing runs: clear answers meanwhile, recovery without help, nothing lost.

The supervisor is held still during an outage, so that it lasts as long as the test looks at it.
"""

import contextlib
from collections.abc import Iterator
from decimal import Decimal

import psutil
import pytest

from tests.e2e.admin import Admin, Customer
from tests.e2e.raw_http import Reply, send
from tests.e2e.running_stack import is_gone, wait_until
from tollkeeper.stack.home import locate

# The cluster by which Envoy reaches each component.
CLUSTERS = {"authz": "authz", "meter": "ingest", "simulator": "provider"}


@contextlib.contextmanager
def without(admin: Admin, name: str) -> Iterator[None]:
    """The component is dead inside the block; afterwards it has come back of its own accord."""
    restarts = admin.stack.component(name)["restarts"]
    process = psutil.Process(admin.stack.component(name)["pid"])
    supervisor = psutil.Process(admin.stack.supervisor_pid)
    supervisor.suspend()
    try:
        wait_until(lambda: supervisor.status() == psutil.STATUS_STOPPED, "nobody restarts it")
        children = process.children(recursive=True)
        process.kill()
        wait_until(lambda: is_gone(process), f"{name} is dead")
        # Postgres: each connection has a process, which ends when it notices.
        wait_until(lambda: all(map(is_gone, children)), f"the processes of {name} are dead")
        if name in CLUSTERS:
            # A request on a connection that is just being lost may have been read by the dead:
            # its outcome would be unknown.
            wait_until(lambda: not connections(admin, name), f"Envoy has lost {name}")
        yield
    finally:
        supervisor.resume()
        admin.stack.wait_restarted(name, restarts)
        admin.wait_well()


def connections(admin: Admin, name: str) -> int:
    """The connections that Envoy has to a component."""
    stat = f"cluster.{CLUSTERS[name]}.upstream_cx_active"
    path = f"/stats?filter=^{stat}$&format=text"
    reply = send("http://envoy", "GET", path, unix_socket=locate(admin.stack.home).envoy_admin)
    return int(reply.body.decode().partition(": ")[2] or 0)


def check_paid(admin: Admin, customer: Customer, *replies: Reply) -> None:
    """Every answer is settled at what the provider billed, and nothing else has moved."""
    admin.wait_settled(customer)
    identities = [reply.headers["x-generation-id"] for reply in replies]
    costs = {one: Decimal(admin.bill_row(one).cost) for one in identities}
    assert {name: Decimal(cost) for name, cost in admin.usage(customer).items()} == costs
    funds = admin.credits(customer)
    assert funds["balance"] == funds["available"] == 5 - sum(costs.values())
    admin.check_ledger()


def served(admin: Admin, customer: Customer) -> Reply:
    """An answer, once requests are served again."""
    found: list[Reply] = []

    def is_served() -> bool:
        with contextlib.suppress(OSError):
            found.append(admin.ask(customer))
        return bool(found) and found[-1].status == 200

    wait_until(is_served, "requests are served again")
    return found[-1]


@pytest.mark.parametrize("name", ["authz", "postgres"])
def test_without_it_every_request_is_a_clear_503(admin: Admin, name: str) -> None:
    """The same for a key that is known and one that is not: nobody can tell them apart now."""
    customer, stranger = admin.open_account(), admin.open_account()
    before = admin.ask(customer)
    received, billed = admin.received()["count"], len(admin.bill())
    with without(admin, name):
        replies = [admin.ask(one) for one in (customer, stranger, customer)]
        for reply in replies:
            assert reply.status == 503
            assert reply.error["code"] == "unavailable"
            assert reply.error["type"] == "service_unavailable"
            assert int(reply.headers["retry-after"]) >= 1
        assert admin.received()["count"] == received
    assert len(admin.bill()) == billed
    check_paid(admin, customer, before, served(admin, customer))
    assert admin.hold_states(stranger) == {}


def test_without_redis_everything_works_but_the_precision_of_limits(admin: Admin) -> None:
    customer = admin.open_account()
    replies = [admin.ask(customer)]
    with without(admin, "redis"):
        replies += [admin.ask(customer) for _ in range(3)]
    replies += [admin.ask(customer)]
    assert [reply.status for reply in replies] == [200] * 5
    check_paid(admin, customer, *replies)


def test_without_the_meter_requests_are_answered_and_held(admin: Admin) -> None:
    """The access log has nobody to tell; the holds stay until somebody is told."""
    customer = admin.open_account()
    before = admin.ask(customer)
    admin.wait_settled(customer)
    with without(admin, "meter"):
        meanwhile = admin.ask(customer)
        assert meanwhile.status == 200
        models = admin.ask(customer, path="/v1/models")
        assert models.status in (404, 503)
    after = admin.ask(customer)
    answered = {before.headers["x-generation-id"], after.headers["x-generation-id"]}

    def is_accounted() -> bool:
        """The file may settle the request of meanwhile at any time, also between two of these."""
        usage, states = set(admin.usage(customer)), admin.hold_states(customer)
        if meanwhile.headers["x-generation-id"] in usage:
            return answered < usage and states == {"settled": 3}
        is_held = admin.credits(customer)["held"] > 0
        return answered == usage and states == {"settled": 2, "open": 1} and is_held

    wait_until(is_accounted, "the others are settled, and that of meanwhile is held or settled")
    costs = {row.generation_id: Decimal(row.cost) for row in admin.bill()}
    usage = admin.usage(customer)
    assert {one: Decimal(cost) for one, cost in usage.items()} == {one: costs[one] for one in usage}
    admin.check_ledger()


def test_without_envoy_nobody_gets_in(admin: Admin) -> None:
    customer = admin.open_account()
    before = admin.ask(customer)
    admin.wait_settled(customer)
    received = admin.received()["count"]
    with without(admin, "envoy"):
        with pytest.raises(ConnectionRefusedError):
            admin.ask(customer)
        assert admin.received()["count"] == received
    check_paid(admin, customer, before, admin.ask(customer))


def test_without_the_provider_holds_are_released(admin: Admin) -> None:
    customer = admin.open_account()
    before = admin.ask(customer)
    with without(admin, "simulator"):
        reply = admin.ask(customer)
        assert reply.status == 503
        assert reply.error["code"] == "provider_unavailable"
        admin.wait_settled(customer)
        assert admin.hold_states(customer) == {"settled": 1, "released": 1}
        assert admin.credits(customer)["held"] == 0
    check_paid(admin, customer, before, served(admin, customer))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [401, 402])
def test_a_refusal_of_our_account_is_ours_to_answer_for(
    admin: Admin, status: int, stream: bool
) -> None:
    customer = admin.open_account()
    told = {"error": {"message": "Insufficient credits, sk-or-secret", "code": status}}
    admin.misbehave(status=status, error_body=told, times=1)
    reply = admin.ask(customer, stream=stream)
    assert reply.status == 503
    assert reply.error["code"] == "provider_unavailable"
    assert b"sk-or-" not in reply.body
    check_released(admin, customer)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_other_refusals_of_the_provider_pass(admin: Admin, status: int, stream: bool) -> None:
    customer = admin.open_account()
    told = {"error": {"message": "Not now", "code": status}}
    admin.misbehave(status=status, error_body=told, times=1)
    reply = admin.ask(customer, stream=stream)
    assert reply.status == status
    assert reply.json() == told
    if status < 500:
        check_released(admin, customer)
    else:
        # The provider may have generated, and billed: it is asked before the hold ends.
        admin.wait_settled(customer)
        assert admin.hold_states(customer) == {"unknown": 1}


def check_released(admin: Admin, customer: Customer) -> None:
    """The hold has ended without a charge, and the next request is served."""
    admin.wait_settled(customer)
    assert admin.hold_states(customer) == {"released": 1}
    assert admin.credits(customer)["available"] == 5
    check_paid(admin, customer, admin.ask(customer))
