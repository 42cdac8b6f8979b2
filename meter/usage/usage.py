"""The usage of a finished request, and the facts about its end.

Providers count differently; here `prompt_tokens` includes cache reads and writes and
`completion_tokens` includes reasoning, as OpenAI and OpenRouter count.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.values import light_value


@light_value
class TokenCounts:
    """Model tokens of one request."""

    prompt: int
    completion: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    def less(self, other: "TokenCounts") -> "TokenCounts":
        """The difference to other counts; it may be negative."""
        return TokenCounts(
            prompt=self.prompt - other.prompt,
            completion=self.completion - other.completion,
            cached=self.cached - other.cached,
            cache_write=self.cache_write - other.cache_write,
            reasoning=self.reasoning - other.reasoning,
        )


@light_value
class ReportedUsage:
    """Usage as the provider reported it. Costs are US dollars; None where it named none."""

    tokens: TokenCounts
    cost_usd: Decimal | None
    upstream_cost_usd: Decimal | None = None
    is_byok: bool = False


class Source(StrEnum):
    """By which way an observation reached the meter."""

    STREAM = "stream"
    FILE = "file"
    LOOKUP = "lookup"
    POLICY = "policy"

    @property
    def rank(self) -> int:
        """The rank of sources that disagree: the provider's own record precedes a log,
        and that beats our guess."""
        return _RANKS[self]


_RANKS: Final = {Source.POLICY: 0, Source.STREAM: 1, Source.FILE: 1, Source.LOOKUP: 2}


@light_value
class Observation:
    """One finished request as an access log saw it.

    `usage` is None when none was seen, which means unknown, never zero. Durations are
    milliseconds, `response_bytes` is what the client was sent of the body. `reached_provider` is
    False only when no byte was sent upstream. `provider_status` is the status that the provider
    itself answered, if it answered. `has_error` says that the reply had an `error` member, or a
    stream an event with one. `upstream_ms` is the time from the first byte that was sent upstream
    to the end; None where no byte was sent, or where nobody measured it. `provider` is the provider
    that answered, as the log names it; None for requests of the default path.
    """

    hold_id: UUID
    started_at: datetime
    latency_ms: int
    time_to_first_byte_ms: int | None
    status_code: int
    provider_status: int | None
    response_flags: str
    reached_provider: bool
    is_streaming: bool
    generation_id: str | None
    usage: ReportedUsage | None
    source: Source
    response_bytes: int = 0
    has_error: bool = False
    upstream_ms: int | None = None
    provider: str | None = None
