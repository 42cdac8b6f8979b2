"""One settled request, as the one who sent it asks about it. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from meter.usage.usage import TokenCounts

# OpenRouter's ids begin with the second in which the generation began.
_TIMED: Final = re.compile(r"gen-(?:[a-z]+-)?([1-9][0-9]{9})-")
# A request begins before its generation, at most as long as a request may take. Clocks differ.
_NEAR: Final = (timedelta(seconds=10), timedelta(seconds=5))
_FAR: Final = (timedelta(seconds=3_600), timedelta(seconds=300))
LATEST: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Generation:
    """A settled request: its usage and costs with all corrections.

    `provider_cost_picos` is the cost that the house owes, `own_key_cost_picos` what the account
    itself paid a provider; None for requests with our key. `price_source` says who named the cost:
    the provider, the catalogue, or an estimate of ours. `source` is the way by which it came.
    """

    generation_id: str | None
    request_id: str | None
    credential_id: str
    model_id: str
    endpoint: str
    provider: str
    started_at: datetime
    tokens: TokenCounts
    provider_cost_picos: int
    charge_picos: int
    own_key_cost_picos: int | None
    price_source: str
    source: str
    latency_ms: int
    time_to_first_byte_ms: int | None
    response_flags: str
    is_streaming: bool


def search_periods(asked_id: str, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the periods in which a request with this id may have begun, the likeliest first.

    An id without a time is looked for among the requests of the last day.
    """
    timed = _TIMED.match(asked_id)
    if timed is None:
        yield now - LATEST, now + _FAR[1]
        return
    began_at = datetime.fromtimestamp(int(timed[1]), UTC)
    for before, after in (_NEAR, _FAR):
        yield began_at - before, began_at + after
