"""Shedding: an account may have its share; others are served while one floods."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from authz.load import AT_ONCE, BUSY_CHECKS, LEAST_SHARE, MAX_HOLD_WAIT_S, SHARED_FOR_S, Load
from authz.metrics import MAX_SHED_ACCOUNTS, Metrics
from meter.errors import Overloaded
from tests.fakes import FakeHolds


class Shedding:
    """A load, its holds and its metrics."""

    def __init__(self) -> None:
        self.holds = FakeHolds()
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.load = Load(self.holds, Metrics(self.registry))

    def enter(self, account_id: str, times: int) -> int:
        """Return how many of so many checks were let in."""
        for done in range(times):
            try:
                self.load.enter(account_id, self.now_s)
            except Overloaded:
                return done
        return times

    def shed(self, account_id: str, cause: str) -> float | None:
        labels = {"account": account_id, "cause": cause}
        return self.registry.get_sample_value("tollkeeper_authz_shed_total", labels)


def test_one_account_alone_may_use_everything() -> None:
    assert Shedding().enter("alone", BUSY_CHECKS + 1) == BUSY_CHECKS


async def test_a_flood_is_shed_and_other_accounts_are_served() -> None:
    shedding = Shedding()
    shedding.enter("flood", 10 * BUSY_CHECKS)
    others = [f"other{number}" for number in range(100)]
    assert [shedding.enter(other, LEAST_SHARE) for other in others] == [LEAST_SHARE] * len(others)
    assert shedding.enter("flood", 1) == 0
    assert shedding.shed("flood", "share") == 2


def test_what_ends_makes_room_again() -> None:
    shedding = Shedding()
    shedding.enter("flood", 10 * BUSY_CHECKS)
    shedding.load.leave("flood")
    assert shedding.enter("flood", 2) == 1


def test_a_hold_that_would_come_too_late_is_shed() -> None:
    shedding = Shedding()
    shedding.holds.wait_s = MAX_HOLD_WAIT_S
    assert shedding.enter("slow", 1) == 1
    shedding.holds.wait_s = MAX_HOLD_WAIT_S * 1.01
    with pytest.raises(Overloaded):
        shedding.load.enter("slow", 0.0)
    assert shedding.shed("slow", "wait") == 1


def test_the_counter_tells_only_some_accounts_apart() -> None:
    shedding = Shedding()
    shedding.holds.wait_s = 1.0
    for number in range(MAX_SHED_ACCOUNTS + 20):
        shedding.enter(f"account{number}", 1)
    assert shedding.shed("other", "wait") == 20
    assert shedding.shed("account0", "wait") == 1


async def test_checks_of_an_account_wait_in_turn_while_others_are_active() -> None:
    load = Shedding().load
    assert load.enter("other", 0.0) is None
    turns = [load.enter("flood", 0.0) for _ in range(AT_ONCE + 2)]
    assert turns[:AT_ONCE] == [None] * AT_ONCE
    first, second = turns[AT_ONCE:]
    assert first is not None and second is not None
    assert load.enter("other", 0.0) is None
    load.leave("flood")
    assert first.done() and not second.done()


async def test_a_wait_that_is_cancelled_passes_its_turn_on() -> None:
    load = Shedding().load
    load.enter("other", 0.0)
    turns = [load.enter("flood", 0.0) for _ in range(AT_ONCE + 3)][AT_ONCE:]
    waits = [asyncio.ensure_future(load.wait("flood", turn)) for turn in turns if turn]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.sleep(0)
    load.leave("flood")
    # The second has its turn now, and is cancelled before it hears of that.
    waits[1].cancel()
    await waits[2]
    for _ in range(AT_ONCE):
        load.leave("flood")
    load.leave("other")
    assert load.is_idle


async def test_the_only_active_account_waits_for_nobody() -> None:
    load = Shedding().load
    load.enter("other", 0.0)
    load.enter("busy", 0.0)
    assert [load.enter("busy", SHARED_FOR_S) for _ in range(2 * AT_ONCE)] == [None] * 2 * AT_ONCE
