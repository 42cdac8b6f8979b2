"""The provider of the simulated world: answers requests, bills most of them, and remembers."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts

TICK: Final = timedelta(seconds=1)
RECORD_LATEST_S: Final = 20
COSTS: Final = (1, 999, 30_000_000, 250_000_001, 10**9, 3 * 10**9, 2 * 10**10)
WRONG_BY: Final = (-1, 1, 10**6)

# What becomes of a request, by a number between 0 and 1: each until its bound.
NEVER_REACHED: Final = 0.08
REFUSED: Final = 0.12
CLIENT_LEFT: Final = 0.17
NO_USAGE: Final = 0.27
WRONGLY_NEVER_REACHED: Final = 0.30
ZERO_COST: Final = 0.34
WRONG_COST: Final = 0.38


@dataclass(frozen=True, slots=True)
class Generation:
    """What the provider knows of one request; it has a record of it from `recorded_at` on."""

    id: str
    hold_id: UUID
    cost_picos: int
    recorded_at: datetime


class Provider:
    """`bill` is what it charges, in pico-dollars by hold."""

    def __init__(self, chances: random.Random) -> None:
        self.bill: dict[UUID, int] = {}
        self.generations: dict[str, Generation] = {}
        self._random = chances

    def answer(self, hold_id: UUID, now: datetime) -> Observation:
        """What an access log says of a request, rightly or not; it may have been billed."""
        chance = self._random.random()
        seen = _seen(hold_id, now)
        if chance < NEVER_REACHED:
            return replace(seen, reached_provider=False, response_flags="UF")
        if chance < REFUSED:
            return replace(seen, provider_status=429)
        generation = self._bill(hold_id, now)
        if chance < CLIENT_LEFT:
            return replace(seen, response_flags="DC")
        return self._log(replace(seen, generation_id=generation.id), generation.cost_picos, chance)

    def _bill(self, hold_id: UUID, now: datetime) -> Generation:
        cost_picos = self._random.choice(COSTS)
        recorded_at = now + TICK * self._random.randrange(RECORD_LATEST_S)
        generation = Generation(f"gen-{hold_id.hex}", hold_id, cost_picos, recorded_at)
        self.generations[generation.id] = generation
        self.bill[hold_id] = cost_picos
        return generation

    def _log(self, seen: Observation, cost_picos: int, chance: float) -> Observation:
        if chance < NO_USAGE:
            return replace(seen, is_streaming=True, response_bytes=self._random.randrange(10_000))
        if chance < WRONGLY_NEVER_REACHED:
            # The connection broke after all had been sent.
            return replace(seen, reached_provider=False, response_flags="UF")
        if chance < ZERO_COST:
            return replace(seen, usage=_usage(0))
        if chance < WRONG_COST:
            return replace(seen, usage=_usage(cost_picos + self._random.choice(WRONG_BY)))
        return replace(seen, usage=_usage(cost_picos))


def record_of(generation: Generation) -> Observation:
    """The provider's own record, as a look-up finds it."""
    return replace(
        _seen(generation.hold_id, generation.recorded_at),
        usage=_usage(generation.cost_picos),
        generation_id=generation.id,
        source=Source.LOOKUP,
    )


def _usage(cost_picos: int) -> ReportedUsage:
    return ReportedUsage(TokenCounts(10, 20), Decimal(cost_picos).scaleb(-12))


def _seen(hold_id: UUID, at: datetime) -> Observation:
    return Observation(
        hold_id=hold_id,
        started_at=at,
        latency_ms=1,
        time_to_first_byte_ms=None,
        status_code=200,
        provider_status=200,
        response_flags="",
        reached_provider=True,
        is_streaming=False,
        generation_id=None,
        usage=None,
        source=Source.STREAM,
    )
