"""Misbehaviour that the simulator can be told to show, and for which requests."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

BEHAVIOURS_MAX = 1_000
DELAY_MAX_MS = 3_600_000
TOKENS_MAX = 10_000_000
COST_PATTERN = r"^(0|[1-9][0-9]{0,6})(\.[0-9]{1,12})?$"
REPLY_MAX_BYTES = 256 * 1024 * 1024


class Match(BaseModel):
    """The requests meant. What is not given matches everything; headers match by value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    stream: bool | None = None
    header: dict[str, str] = Field(default_factory=dict)

    def fits(self, model: str, is_stream: bool, headers: Mapping[str, str]) -> bool:
        return (
            self.model in (None, model)
            and self.stream in (None, is_stream)
            and all(headers.get(name) == value for name, value in self.header.items())
        )


class Behaviour(BaseModel):
    """One way to misbehave. The members combine; the defaults are good behaviour.

    ``times`` is how many requests it is for, null for all that come. ``status``, ``error_only``,
    ``empty`` and ``cut_before_reply`` answer with a failure and bill nothing, unless ``billed``;
    everything else is billed as if nothing were wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Match = Match()
    times: int | None = Field(default=None, ge=1)
    status: int | None = Field(default=None, ge=300, le=599)
    error_body: JsonValue = None
    error_only: bool = False
    empty: bool = False
    cut_before_reply: bool = False
    billed: bool = False
    delay_ms: int = Field(default=0, ge=0, le=DELAY_MAX_MS)
    until_left: bool = False
    body_delay_ms: int = Field(default=0, ge=0, le=DELAY_MAX_MS)
    chunk_delay_ms: int | None = Field(default=None, ge=0, le=DELAY_MAX_MS)
    chunk_sizes: tuple[int, ...] = ()
    cut_after_bytes: int | None = Field(default=None, ge=0)
    silent_usage: bool = False
    usage_null: bool = False
    usage_after_done: bool = False
    usage_placeholder: Literal["zeros", "zeros_after", "lesser_after"] | None = None
    zero_cost: bool = False
    cost_form: Literal["negative", "text", "null", "missing"] | None = None
    wrong_cost: str | None = Field(default=None, pattern=COST_PATTERN)
    error_midstream: bool = False
    omit_generation_id: bool = False
    omit_generation: bool = False
    record_delay_ms: int = Field(default=0, ge=0, le=DELAY_MAX_MS)
    record_zero_ms: int = Field(default=0, ge=0, le=DELAY_MAX_MS)
    omit_report: bool = False
    line_ending: Literal["\n", "\r\n", "\r"] = "\n"
    prompt_tokens: int | None = Field(default=None, ge=0, le=TOKENS_MAX)
    completion_tokens: int | None = Field(default=None, ge=0, le=TOKENS_MAX)
    price_factor: int = Field(default=1, ge=1, le=1_000)
    is_greedy: bool = False
    unasked_searches: int | None = Field(default=None, ge=0, le=1_000)
    reply_bytes: int | None = Field(default=None, ge=1, le=REPLY_MAX_BYTES)
    text: str | None = None

    def model_post_init(self, context: object, /) -> None:
        if any(size < 1 for size in self.chunk_sizes):
            raise ValueError("chunk_sizes must be positive")

    @property
    def is_failure(self) -> bool:
        """True when the request is answered with a failure in place of a reply."""
        return self.status is not None or self.error_only or self.empty or self.cut_before_reply


GOOD_BEHAVIOUR = Behaviour()


class Behaviours:
    """The behaviours in force. The first that fits a request is used, and used up."""

    def __init__(self) -> None:
        self._in_force: list[tuple[Behaviour, int | None]] = []

    def add(self, behaviour: Behaviour) -> None:
        """Raises ValueError when there are too many."""
        if len(self._in_force) >= BEHAVIOURS_MAX:
            raise ValueError(f"more than {BEHAVIOURS_MAX} behaviours")
        self._in_force.append((behaviour, behaviour.times))

    def clear(self) -> None:
        self._in_force.clear()

    def listed(self) -> list[dict[str, object]]:
        """Each behaviour as it was given, with ``times`` what is left of it."""
        return [
            {**behaviour.model_dump(mode="json", exclude_unset=True), "times": left}
            for behaviour, left in self._in_force
        ]

    def take(self, model: str, is_stream: bool, headers: Mapping[str, str]) -> Behaviour:
        """Return the behaviour for a request; ``GOOD_BEHAVIOUR`` by default."""
        for index, (behaviour, left) in enumerate(self._in_force):
            if behaviour.match.fits(model, is_stream, headers):
                if left == 1:
                    del self._in_force[index]
                elif left is not None:
                    self._in_force[index] = (behaviour, left - 1)
                return behaviour
        return GOOD_BEHAVIOUR
