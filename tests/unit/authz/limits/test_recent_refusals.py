"""A caller that a limit refused a moment ago is refused again without asking Redis."""

from authz.limits.answer import NEVER, BucketState, LimitUse
from authz.limits.recent_refusals import REMEMBERED_S, RecentRefusals
from meter.clock import ManualClock
from tests.fakes import EPOCH
from tests.windows import requests, tokens


def make(use: LimitUse, state: BucketState) -> tuple[RecentRefusals, ManualClock]:
    clock = ManualClock(EPOCH)
    refusals = RecentRefusals(clock)
    refusals.note([use], [state], clock.monotonic_s())
    return refusals, clock


def test_a_full_bucket_refuses_until_it_has_room() -> None:
    use = requests(5)
    refusals, clock = make(use, BucketState(-1, 400_000, 900_000))
    clock.advance(0.3)
    answer = refusals.find([requests(9, "key:k").limit, use.limit])
    assert answer is not None
    assert answer.refused_by == use.limit
    assert answer.retry_after_s is not None
    assert abs(answer.retry_after_s - 0.1) < 1e-9
    assert (answer.statuses[0].limit, answer.statuses[0].remaining) == (5, 0)
    clock.advance(0.11)
    assert refusals.find([use.limit]) is None


def test_it_is_asked_about_again_after_a_second() -> None:
    use = requests(5)
    refusals, clock = make(use, BucketState(-1, 30_000_000, 60_000_000))
    clock.advance(REMEMBERED_S - 0.01)
    assert refusals.find([use.limit]) is not None
    clock.advance(0.02)
    assert refusals.find([use.limit]) is None


def test_a_limit_that_was_changed_is_asked_about() -> None:
    refusals, _ = make(requests(5), BucketState(-1, 400_000, 900_000))
    assert refusals.find([requests(6).limit]) is None


def test_only_certain_refusals_are_remembered() -> None:
    shadow = requests(5, is_shadow=True)
    for use, state in [
        (shadow, BucketState(-1, 400_000, 900_000)),
        (tokens(5, 1), BucketState(-1, 400_000, 900_000)),
        (requests(5), BucketState(0, 0, 900_000)),
        (requests(0), BucketState(-1, NEVER, 0)),
    ]:
        refusals, _ = make(use, state)
        assert refusals.find([use.limit]) is None


def test_all_of_it_can_be_forgotten() -> None:
    refusals, _ = make(requests(5), BucketState(-1, 400_000, 900_000))
    refusals.forget()
    assert refusals.find([requests(5).limit]) is None
