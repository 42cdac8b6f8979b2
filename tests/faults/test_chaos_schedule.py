"""The seed alone decides which faults happen, and everything is hit often enough."""

from collections import Counter

import pytest

from chaos.customers import Customer
from chaos.requests import KINDS as REQUEST_KINDS
from chaos.requests import behaviours, requests
from chaos.schedule import CALM_END_S, CALM_START_S, CRASH_POINTS, schedule, to_text
from chaos.stack import KINDS
from tollkeeper.simulator.answers.misbehaviour import Behaviour

CUSTOMERS = [Customer("rich", 0, False, "k1"), Customer("poor", 333, True, "k2")]


@pytest.mark.parametrize("seed", [0, 7, 2**31])
def test_a_seed_replays(seed: int) -> None:
    assert to_text(schedule(seed, 180)) == to_text(schedule(seed, 180))
    assert schedule(seed, 180) != schedule(seed + 1, 180)


def test_kills_are_many_and_spread_over_all_components() -> None:
    faults = schedule(1, 1200)
    kills = Counter(one.targets[0] for one in faults if one.action == "kill")
    assert set(kills) == set(KINDS)
    assert kills.total() >= 100
    assert max(kills.values()) - min(kills.values()) <= 1
    for minute in range(20):
        within = [one for one in faults if minute * 60 <= one.at_s < (minute + 1) * 60]
        assert sum(one.action == "kill" for one in within) >= 5


def test_everything_else_goes_wrong_too_and_ends_before_the_load() -> None:
    faults = schedule(2, 1200)
    assert {one.targets[0] for one in faults if one.action == "crash"} == set(CRASH_POINTS)
    assert len({one.action for one in faults}) == 16
    assert [one.at_s for one in faults] == sorted(one.at_s for one in faults)
    assert all(CALM_START_S <= one.at_s <= 1200 - CALM_END_S for one in faults)


def test_a_seed_asks_the_same_in_the_same_order() -> None:
    first, second = requests(5, CUSTOMERS), requests(5, CUSTOMERS)
    asked = [next(first) for _ in range(500)]
    assert asked == [next(second) for _ in range(500)]
    assert {one.kind for one in asked} == set(REQUEST_KINDS)
    assert {one.protocol for one in asked} == {"h2", "http/1.1"}
    assert len({one.tag for one in asked}) == 500
    assert 0.1 < sum(one.leave is not None for one in asked) / 500 < 0.4


def test_the_upstream_knows_every_misbehaviour() -> None:
    for behaviour in behaviours(has_billed_failures=True, has_reports=True):
        Behaviour.model_validate(behaviour)
