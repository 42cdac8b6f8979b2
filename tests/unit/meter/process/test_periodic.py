"""Periodic work goes on through outages, at the pace that it is given, and stops for faults."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from meter.errors import ProviderUnavailable, StoreUnavailable
from meter.process.periodic import periodic, until_done

OUTAGES = (StoreUnavailable, ProviderUnavailable)


class Over(BaseException):
    """Ends work that would go on for ever."""


class Clock:
    """Sleeps without waiting; after so many pauses it ends the work."""

    def __init__(self, pauses: int) -> None:
        self.slept_s: list[float] = []
        self._pauses = pauses

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        if len(self.slept_s) == self._pauses:
            raise Over


class Step:
    """Returns or raises the given outcomes in turn, then None for ever."""

    def __init__(self, *outcomes: float | Exception | None) -> None:
        self._outcomes: Iterator[float | Exception | None] = iter(outcomes)
        self.calls = 0

    async def __call__(self) -> float | None:
        self.calls += 1
        outcome = next(self._outcomes, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def away() -> StoreUnavailable:
    return StoreUnavailable("away")


async def run(
    step: Step, pauses: int, first_after_s: float = 0.0, most_retry_s: float | None = None
) -> list[float]:
    clock = Clock(pauses)
    with pytest.raises(Over):
        await periodic(
            "work",
            step,
            every_s=60.0,
            retry_s=2.0,
            outages=OUTAGES,
            first_after_s=first_after_s,
            most_retry_s=most_retry_s,
            sleep=clock.sleep,
        )
    return clock.slept_s


async def test_a_step_is_repeated_at_its_interval() -> None:
    step = Step()
    assert await run(step, pauses=4) == [0.0, 60.0, 60.0, 60.0]
    assert step.calls == 3


async def test_the_first_step_may_come_later() -> None:
    step = Step()
    assert await run(step, pauses=1, first_after_s=30.0) == [30.0]
    assert step.calls == 0


async def test_a_step_may_say_when_the_next_one_is_due() -> None:
    assert await run(Step(5.0, 0.0, None), pauses=4) == [0.0, 5.0, 0.0, 60.0]


async def test_an_outage_is_tried_again_sooner_and_logged_once() -> None:
    with capture_logs() as logs:
        slept_s = await run(Step(away(), ProviderUnavailable("away"), None, away()), pauses=5)
    assert slept_s == [0.0, 2.0, 2.0, 60.0, 2.0]
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("work_waits", "warning"),
        ("work_resumed", "info"),
        ("work_waits", "warning"),
    ]
    assert logs[0]["reason"] == "away"
    assert logs[1]["failures"] == 2


async def test_the_pause_doubles_up_to_its_limit_and_begins_anew_after_a_success() -> None:
    step = Step(away(), away(), away(), away(), None, away())
    slept_s = await run(step, pauses=7, most_retry_s=9.0)
    assert slept_s == [0.0, 2.0, 4.0, 8.0, 9.0, 60.0, 2.0]


async def test_every_failed_attempt_can_be_counted() -> None:
    seen: list[Exception] = []
    outages = [away(), away()]
    clock = Clock(pauses=10)
    step = Step(*outages, 7.0)
    result = await until_done("w", step, 1.0, OUTAGES, on_outage=seen.append, sleep=clock.sleep)
    assert (result, seen) == (7.0, outages)
    assert clock.slept_s == [1.0, 1.0]


async def test_what_is_no_outage_ends_the_work() -> None:
    clock = Clock(pauses=10)
    step = Step(None, ValueError("a fault of ours"))

    with pytest.raises(ValueError, match="a fault of ours"):
        await periodic("work", step, 60.0, 2.0, OUTAGES, sleep=clock.sleep)
    assert clock.slept_s == [0.0, 60.0]
