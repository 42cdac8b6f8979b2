"""Room for large bodies, counted by one process."""

from authz.limits.arriving_bodies import ARRIVAL_S, LocalArrivingBodies, Room
from meter.clock import ManualClock
from tests.fakes import EPOCH


def test_an_account_has_a_share_and_all_have_a_total() -> None:
    bodies = LocalArrivingBodies(ManualClock(EPOCH), total_bytes=100, account_bytes=60)
    assert bodies.take("a", "1", 60) is Room.GIVEN
    assert bodies.take("a", "2", 1) is Room.NONE_FOR_ACCOUNT
    assert bodies.take("b", "3", 41) is Room.NONE_AT_ALL
    assert bodies.take("b", "3", 40) is Room.GIVEN
    bodies.give_back("1")
    bodies.give_back("1")
    assert bodies.take("a", "2", 60) is Room.GIVEN


def test_the_same_body_counts_once() -> None:
    bodies = LocalArrivingBodies(ManualClock(EPOCH), total_bytes=100, account_bytes=60)
    assert bodies.take("a", "1", 30) is Room.GIVEN
    assert bodies.take("a", "1", 30) is Room.GIVEN
    assert bodies.take("a", "2", 30) is Room.GIVEN


def test_a_body_that_never_comes_keeps_its_room_for_a_time() -> None:
    clock = ManualClock(EPOCH)
    bodies = LocalArrivingBodies(clock, total_bytes=100, account_bytes=60)
    bodies.take("a", "1", 60)
    clock.advance(ARRIVAL_S - 1)
    assert bodies.take("a", "2", 1) is Room.NONE_FOR_ACCOUNT
    clock.advance(1)
    assert bodies.take("a", "2", 60) is Room.GIVEN
