"""The question of a check to its limits, and their answer.

`redis_limiter.py` counts for all instances together, `local_limiter.py` for this one alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from authz.decision import LimitStatus
from meter.limits.limits import WINDOW_S, Limit, LimitKind

_MICROS_PER_S: Final = 1_000_000


class LimitUse(NamedTuple):
    """The amount that one check takes from one bucket: a request, or its prompt's tokens.

    `local_amount` counts while Redis is away, because then the tokens of the reply are never
    reported here: it includes the longest reply. None means that it is `amount`.
    """

    limit: Limit
    amount: int
    local_amount: int | None = None


@dataclass(frozen=True, slots=True)
class LimitAnswer:
    """The answer of all limits of one check together. A refused check counts in none of them.

    `statuses` are for the headers: the tightest limit of each kind, apart from limits in shadow
    mode. `refused_by` is None when the check is admitted, else the limit with the longest wait,
    which is `retry_after_s`. `shadow_refusals` are the limits in shadow mode that have no room.
    """

    statuses: tuple[LimitStatus, ...]
    refused_by: Limit | None
    retry_after_s: float | None
    shadow_refusals: tuple[Limit, ...]


class BucketState(NamedTuple):
    """The answer of a bucket to one amount; times are microseconds.

    `spare` is what the limit has left after the amount; below zero, the amount does not fit.
    `wait_us` is the time until it fits, or NEVER for an amount above the limit. `reset_us` is the
    time until the whole limit is available.
    """

    spare: int
    wait_us: int
    reset_us: int


NEVER: Final = -1
ADMITTED: Final = LimitAnswer((), None, None, ())


class Limiter(Protocol):
    """Counts requests and tokens against limits."""

    async def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """Count one check in all of these buckets, or in none. Never raises an outage."""
        ...

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """Return the refusal that one more request is certain to get, without any call to Redis.

        None where the request may be admitted. Only limits of requests are examined.
        """
        ...


def to_answer(uses: Sequence[LimitUse], states: Sequence[BucketState]) -> LimitAnswer:
    """Return the answer of all buckets of a check together."""
    refused_by: Limit | None = None
    longest_us = 0
    shadow_refusals: tuple[Limit, ...] = ()
    for use, state in zip(uses, states, strict=True):
        if state.spare >= 0:
            continue
        # Amounts above a whole limit are of tokens, which are counted by the minute only.
        wait_us = WINDOW_S * _MICROS_PER_S if state.wait_us == NEVER else state.wait_us
        if use.limit.is_shadow:
            shadow_refusals += (use.limit,)
        elif refused_by is None or wait_us > longest_us:
            refused_by, longest_us = use.limit, wait_us
    # Only the tightest limit of each kind is shown to the client.
    tightest: dict[LimitKind, tuple[int, int, Limit, int]] = {}
    for use, state in zip(uses, states, strict=True):
        limit = use.limit
        if limit.is_shadow:
            continue
        # A refused check was not counted.
        left = state.spare if refused_by is None else state.spare + use.amount
        remaining = max(0, left)
        # The limit that refuses is the one to report, even where others have less left.
        rank = -1 if limit is refused_by else remaining
        before = tightest.get(limit.kind)
        if before is None or rank < before[0]:
            tightest[limit.kind] = (rank, remaining, limit, state.reset_us)
    return LimitAnswer(
        tuple(
            LimitStatus(kind, limit.most, remaining, reset_us / _MICROS_PER_S)
            for kind, (_, remaining, limit, reset_us) in tightest.items()
        ),
        refused_by,
        None if refused_by is None else longest_us / _MICROS_PER_S,
        shadow_refusals,
    )
