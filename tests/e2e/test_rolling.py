"""Two instances of each: rolling restarts under load refuse nothing and lose nothing."""

import asyncio
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

import aiohttp
import pytest

from tests.e2e.admin import Admin, Customer, chat
from tests.e2e.running_stack import RunningStack, wait_until
from tests.patience import WAIT_S
from tests.servers import run_in_thread
from tollkeeper.stack.home import locate

CLIENTS = 9
THINK_S = 0.05
# What was asked of a meter that hangs is not answered; the next question goes to the other.
READ_TIMEOUT_S = 3.0
# Envoy takes a server out of use after the second health check without an answer, and waits a
# second for each. A server that was stopped within a transaction keeps the account locked until
# Postgres ends the transaction, after 10 s. After that, all must be well for as long as this.
WELL_FOR_S = 1.0


@dataclass
class Load:
    """Clients that ask without pause: one in three opens a connection for each request."""

    gateway: str
    customer: Customer
    read_timeout_s: float = WAIT_S
    outcomes: Counter[str] = field(default_factory=Counter)
    resets: Counter[int] = field(default_factory=Counter)
    is_over: bool = False

    async def run(self, work: Callable[[], None]) -> None:
        """Keep the load up while `work` runs in a thread."""
        clients = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]
        await asyncio.sleep(0.5)
        try:
            await asyncio.to_thread(work)
        finally:
            self.is_over = True
            await asyncio.gather(*clients)

    async def _ask(self, number: int) -> None:
        connector = aiohttp.TCPConnector(limit=1, force_close=number % 3 == 0)
        is_reading = number % 6 == 5
        timeout = aiohttp.ClientTimeout(total=self.read_timeout_s if is_reading else WAIT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while not self.is_over:
                await self._once(session, number, is_reading)
                await asyncio.sleep(THINK_S)

    async def _once(self, session: aiohttp.ClientSession, number: int, is_reading: bool) -> None:
        headers = {"Authorization": f"Bearer {self.customer.key}"}
        body = None if is_reading else chat(stream=number % 2 == 0)
        method, path = (
            ("GET", "/api/v1/credits") if is_reading else ("POST", "/v1/chat/completions")
        )
        try:
            async with session.request(
                method, self.gateway + path, json=body, headers=headers
            ) as reply:
                await reply.read()
                self.outcomes["read" if is_reading else "paid"] += reply.status == 200
                self.outcomes[f"{method} {reply.status}"] += reply.status != 200
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, OSError) and error.errno == errno.ECONNRESET:
                # If it was answered all the same, the bill shows one request too many.
                self.resets[number] += 1
            else:
                self.outcomes[f"{method} {error!r}"] += 1


@pytest.fixture(scope="module")
def pair(make_stack: Callable[[], RunningStack]) -> Iterator[Admin]:
    """A stack with two authz and two meters."""
    stack = make_stack()
    stack.environment.update(
        TOLLKEEPER_AUTHZ_INSTANCES="2",
        TOLLKEEPER_METER_INSTANCES="2",
        SIMULATOR_GENERATION_DELAY_MS="100",
        TOLLKEEPER_LOOKUP_FIRST_DELAY_S="0.5",
    )
    stack.up()
    yield Admin(stack)
    # The machine is needed by other tests.
    stack.down()


def roll(admin: Admin, component: str) -> Load:
    """Restart it under load; what the clients saw."""
    load = Load(admin.stack.gateway, admin.open_account("1000"))

    def restart() -> None:
        outcome = admin.stack.run("restart", component)
        assert outcome.returncode == 0, outcome.stderr

    run_in_thread(lambda: load.run(restart))
    return load


def require_exact(admin: Admin, load: Load, billed_before: int) -> None:
    """Each answer is one row of the bill and one settlement, and nothing else was held."""
    admin.wait_settled(load.customer)
    bill = {row.generation_id: Decimal(row.cost) for row in admin.bill()[billed_before:]}
    usage = admin.usage(load.customer)
    assert {name: Decimal(cost) for name, cost in usage.items()} == bill
    assert len(bill) == load.outcomes["paid"]
    assert admin.hold_states(load.customer) == {"settled": len(bill)}


@pytest.mark.parametrize("component", ["authz", "meter", "envoy"])
def test_a_rolling_restart_refuses_and_loses_nothing(pair: Admin, component: str) -> None:
    before, pids = len(pair.bill()), pids_of(pair, component)
    load = roll(pair, component)
    assert not pids & pids_of(pair, component)
    assert {one for one, count in load.outcomes.items() if count} == {"paid", "read"}
    # The kernel resets the connections that the old Envoy had not accepted when it closed its
    # listener (decision record 8): at that moment a client has one at most.
    assert max(load.resets.values(), default=0) <= (component == "envoy")
    require_exact(pair, load, before)


def pids_of(admin: Admin, component: str) -> set[int]:
    """The processes of a component's instances."""
    names = [component] if component == "envoy" else [component, f"{component}-2"]
    return {admin.stack.component(name)["pid"] for name in names}


@contextmanager
def stopped(admin: Admin, *names: str) -> Iterator[None]:
    """As by a machine that swaps, or a paused container."""
    pids = [admin.stack.component(name)["pid"] for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_those_that_are_stopped_are_left_alone_and_do_no_harm_when_they_wake(pair: Admin) -> None:
    before = len(pair.bill())
    load = Load(pair.stack.gateway, pair.open_account("1000"), READ_TIMEOUT_S)

    def is_well() -> bool:
        before = Counter(load.outcomes)
        time.sleep(WELL_FOR_S)
        return set(load.outcomes - before) == {"paid", "read"}

    def stop_and_wake() -> None:
        with stopped(pair, "authz-2", "meter-2"):
            wait_until(is_well, "the others serve every request")
        wait_until(is_well, "every request is served after they woke")

    run_in_thread(lambda: load.run(stop_and_wake))
    pair.wait_settled(load.customer)
    states, bill = pair.hold_states(load.customer), pair.bill()[before:]
    assert states["settled"] == len(bill) == load.outcomes["paid"]
    # What was placed for checks that nobody waited for any more was given back.
    assert set(states) <= {"settled", "released"}


def test_a_component_that_is_not_there_is_one_sentence(pair: Admin) -> None:
    outcome = pair.stack.run("restart", "postgrse")
    assert outcome.returncode == 1
    assert "There is no component 'postgrse'; there are postgres, redis" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_the_control_socket_is_its_owners(pair: Admin) -> None:
    assert locate(pair.stack.home).control.stat().st_mode & 0o777 == 0o600
