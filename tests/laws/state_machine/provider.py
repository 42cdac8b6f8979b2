"""The provider of the simulation: answers requests, bills most of them, and remembers."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts

TICK: Final = timedelta(seconds=1)
RECORD_LATEST_S: Final = 20
COSTS: Final = (1, 999, 30_000_000, 250_000_001, 10**9, 3 * 10**9, 2 * 10**10)
WRONG_BY: Final = (-1, 1, 10**6)

# What becomes of a request, by a number between 0 and 1: each until its bound.
NEVER_REACHED: Final = 0.08
REFUSED: Final = 0.12
FAILED: Final = 0.20
CLIENT_LEFT: Final = 0.25
NO_USAGE: Final = 0.33
WRONGLY_NEVER_REACHED: Final = 0.36
ZERO_COST: Final = 0.40
PLACEHOLDER: Final = 0.44
NO_COST: Final = 0.48
WRONG_COST: Final = 0.52
# Shares of what failed: with a generation id, billed all the same, cut without a byte.
NAMED: Final = 0.5
BILLED: Final = 0.4
CUT: Final = 0.3
# The share of records that say 0 until the provider has priced them.
ZERO_FIRST: Final = 0.1
PRICED_LATEST_S: Final = 60


@dataclass(frozen=True, slots=True)
class Generation:
    """One request as the provider knows it.

    It has a record of it from `recorded_at` on, which says 0 until `priced_at`.
    """

    id: str
    hold_id: UUID
    cost_picos: int
    recorded_at: datetime
    priced_at: datetime


class Provider:
    """`bill` is what it charges, in pico-dollars by hold."""

    def __init__(self, chances: random.Random) -> None:
        self.bill: dict[UUID, int] = {}
        self.generations: dict[str, Generation] = {}
        self._random = chances

    def answer(self, hold_id: UUID, now: datetime) -> Observation:
        """Return an access log's entry for a request, right or wrong; it may have been billed."""
        chance = self._random.random()
        seen = _seen(hold_id, now)
        if chance < NEVER_REACHED:
            return replace(seen, **_UNSENT)
        if chance < REFUSED:
            return replace(seen, provider_status=429)
        if chance < FAILED:
            return self._fail(seen, now)
        generation = self._bill(hold_id, now)
        if chance < CLIENT_LEFT:
            return replace(seen, response_flags="DC", provider_status=None)
        return self._log(replace(seen, generation_id=generation.id), generation.cost_picos, chance)

    def _bill(self, hold_id: UUID, now: datetime) -> Generation:
        cost_picos = self._random.choice(COSTS)
        recorded_at = now + TICK * self._random.randrange(RECORD_LATEST_S)
        priced_at = recorded_at
        if self._random.random() < ZERO_FIRST:
            priced_at += TICK * self._random.randrange(PRICED_LATEST_S)
        generation = Generation(f"gen-{hold_id.hex}", hold_id, cost_picos, recorded_at, priced_at)
        self.generations[generation.id] = generation
        self.bill[hold_id] = cost_picos
        return generation

    def _fail(self, seen: Observation, now: datetime) -> Observation:
        """An error in place of a reply; it may have been billed, and may name its generation."""
        chance = self._random.random
        if chance() < BILLED:
            self._bill(seen.hold_id, now)
        if chance() < CUT:
            return replace(
                seen, provider_status=None, response_flags="UC", status_code=503, upstream_ms=20
            )
        generation_id = f"gen-{seen.hold_id.hex}" if chance() < NAMED else None
        return replace(seen, provider_status=503, status_code=503, generation_id=generation_id)

    def _log(self, seen: Observation, cost_picos: int, chance: float) -> Observation:
        if chance < NO_USAGE:
            size = self._random.randrange(100, 10_000)
            return replace(seen, is_streaming=True, response_bytes=size)
        if chance < WRONGLY_NEVER_REACHED:
            # The connection broke after all had been sent.
            return replace(seen, **_UNSENT, generation_id=None)
        if chance < ZERO_COST:
            return replace(seen, usage=_usage(0))
        if chance < PLACEHOLDER:
            return replace(seen, usage=ReportedUsage(TokenCounts(0, 0), Decimal(0)))
        if chance < NO_COST:
            return replace(seen, usage=ReportedUsage(TokenCounts(10, 20), None))
        if chance < WRONG_COST:
            return replace(seen, usage=_usage(cost_picos + self._random.choice(WRONG_BY)))
        return replace(seen, usage=_usage(cost_picos))


def record_of(generation: Generation, now: datetime) -> Observation:
    """The provider's own record, as a look-up finds it."""
    cost_picos = generation.cost_picos if generation.priced_at <= now else 0
    return replace(
        _seen(generation.hold_id, generation.recorded_at),
        usage=_usage(cost_picos),
        generation_id=generation.id,
        source=Source.LOOKUP,
    )


# The log says that nothing was sent.
_UNSENT: Final[dict[str, Any]] = {
    "reached_provider": False,
    "response_flags": "UF",
    "provider_status": None,
}


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
        response_bytes=600,
    )
