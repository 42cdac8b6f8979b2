"""Shedding: an account may have its share; others are served while one floods."""

import pytest
from prometheus_client import CollectorRegistry

from authz.load import BUSY_CHECKS, LEAST_SHARE, MAX_HOLD_WAIT_S, Load
from authz.metrics import MAX_SHED_ACCOUNTS, Metrics
from meter.errors import Overloaded
from tests.fakes import FakeHolds


class Shedding:
    """A load, its holds and its metrics."""

    def __init__(self) -> None:
        self.holds = FakeHolds()
        self.registry = CollectorRegistry()
        self.load = Load(self.holds, Metrics(self.registry))

    def enter(self, account_id: str, times: int) -> int:
        """Return how many of so many checks were let in."""
        for done in range(times):
            try:
                self.load.enter(account_id)
            except Overloaded:
                return done
        return times

    def shed(self, account_id: str, cause: str) -> float | None:
        labels = {"account": account_id, "cause": cause}
        return self.registry.get_sample_value("tollkeeper_authz_shed_total", labels)


def test_one_account_alone_may_use_everything() -> None:
    assert Shedding().enter("alone", BUSY_CHECKS + 1) == BUSY_CHECKS


def test_a_flood_is_shed_and_other_accounts_are_served() -> None:
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
        shedding.load.enter("slow")
    assert shedding.shed("slow", "wait") == 1


def test_the_counter_tells_only_some_accounts_apart() -> None:
    shedding = Shedding()
    shedding.holds.wait_s = 1.0
    for number in range(MAX_SHED_ACCOUNTS + 20):
        shedding.enter(f"account{number}", 1)
    assert shedding.shed("other", "wait") == 20
    assert shedding.shed("account0", "wait") == 1
