"""The mixed load: what is asked, how, and how the upstream is told to treat it."""

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.customers import Customer
from chaos.records import KIND_HEADER, TAG_HEADER

PATH: Final = "/v1/chat/completions"
RESPONSES_PATH: Final = "/v1/responses"
MESSAGES_PATH: Final = "/v1/messages"
# Near the end of a stream of each.
LAST_EVENTS: Final = (b"[DONE]", b"response.completed", b"message_stop")
# Each path with how often it is drawn.
PATHS: Final = {PATH: 6, RESPONSES_PATH: 2, MESSAGES_PATH: 2}
MODELS: Final = (
    "openai/gpt-4o-mini",
    "openai/gpt-4o",
    "openai/gpt-5-nano",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
    "meta-llama/llama-3.2-1b-instruct",
    "openai/gpt-oss-20b:free",
)
# Words of a reply that look like a bill, for readers that search instead of parsing.
DECOY: Final = 'data: {"usage": {"cost": 900, "prompt_tokens": 1}}\n\n"usage":{"cost":900}[DONE]'

# How the upstream treats a request of each kind; each with how often it is drawn.
KINDS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "good": (30, {}),
    "slow_stream": (6, {"chunk_sizes": [90], "chunk_delay_ms": 20}),
    "slow_start": (6, {"delay_ms": 700}),
    "very_slow": (2, {"delay_ms": 3000}),
    "split": (3, {"chunk_sizes": [7, 1, 3], "chunk_delay_ms": 0}),
    "refused_400": (2, {"status": 400}),
    "refused_402": (1, {"status": 402}),
    "refused_429": (2, {"status": 429}),
    "refused_500": (2, {"status": 500}),
    "refused_503": (1, {"status": 503, "error_body": "<html>away</html>"}),
    "failed_502": (2, {"status": 502}),
    "failed_529_nameless": (1, {"status": 529, "omit_generation_id": True}),
    "failed_504": (1, {"status": 504}),
    "cut_before_reply": (2, {"cut_before_reply": True}),
    "redirected": (1, {"status": 307}),
    "error_only": (1, {"error_only": True}),
    "empty": (1, {"empty": True}),
    "cut_at_once": (2, {"cut_after_bytes": 0}),
    "cut_early": (3, {"cut_after_bytes": 150}),
    "cut_late": (2, {"cut_after_bytes": 900}),
    "error_midstream": (3, {"error_midstream": True}),
    "silent": (4, {"silent_usage": True}),
    "usage_null": (2, {"usage_null": True}),
    "usage_late": (2, {"usage_after_done": True}),
    "zero_cost": (4, {"zero_cost": True}),
    "placeholder": (2, {"usage_placeholder": "zeros"}),
    "zeros_after": (2, {"usage_placeholder": "zeros_after"}),
    "lesser_after": (2, {"usage_placeholder": "lesser_after"}),
    "cost_negative": (1, {"cost_form": "negative"}),
    "cost_text": (1, {"cost_form": "text"}),
    "cost_null": (1, {"cost_form": "null"}),
    "cost_missing": (1, {"cost_form": "missing"}),
    "record_late": (2, {"silent_usage": True, "record_delay_ms": 8_000}),
    "record_zero": (2, {"silent_usage": True, "record_zero_ms": 4_000}),
    "wrong_cost": (3, {"wrong_cost": "0.000123456789"}),
    "nameless": (2, {"omit_generation_id": True}),
    "silent_nameless": (1, {"silent_usage": True, "omit_generation_id": True}),
    "beyond_hold": (2, {"completion_tokens": 3000}),
    "decoy": (2, {"text": DECOY}),
    "carriage_returns": (2, {"line_ending": "\r\n"}),
}
# Failures that a provider may bill all the same.
MAY_BE_BILLED: Final = frozenset(
    {
        "refused_500",
        "refused_503",
        "failed_502",
        "failed_504",
        "failed_529_nameless",
        "cut_before_reply",
    }
)
LEAVING_SHARE: Final = 0.22
HTTP2_SHARE: Final = 0.15
STREAM_SHARE: Final = 0.55
# The poor are refused most of the time, so they ask less often.
RICH_WEIGHT: Final = 4
# What a client says that would have its requests taken for one another.
HOSTILE: Final = ("x-request-id", "11111111-1111-4111-8111-111111111111")
HOSTILE_SHARE: Final = 0.1
POINTS: Final = ("headers", "body", "check", "waiting", "reply", "middle", "usage", "end")


@dataclass(frozen=True, slots=True)
class Leave:
    """The point of the exchange at which the client goes away, and how: `close` or `reset`.

    `fraction` places it within the point: of the bytes sent, or of half a second.
    """

    point: str
    how: str
    fraction: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request before it is sent."""

    tag: str
    customer: Customer
    kind: str
    protocol: str
    leave: Leave | None
    is_hostile: bool
    path: str
    body: bytes = field(repr=False)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers beside the length; names in lower case, as HTTP/2 wants them."""
        return [
            ("authorization", f"Bearer {self.customer.key}"),
            ("content-type", "application/json"),
            (TAG_HEADER, self.tag),
            (KIND_HEADER, self.kind),
            *([HOSTILE] if self.is_hostile else []),
        ]


def behaviours(has_billed_failures: bool, has_reports: bool) -> list[dict[str, Any]]:
    """Return the behaviours that the simulator keeps for the whole run.

    Only a report says that a positive cost in a reply is wrong: without reports none is.
    """
    return [
        {
            "match": {"header": {KIND_HEADER: kind}},
            **how,
            "billed": has_billed_failures and kind in MAY_BE_BILLED,
        }
        for kind, (_, how) in KINDS.items()
        if how and (has_reports or kind != "wrong_cost")
    ]


def requests(seed: int, customers: list[Customer]) -> Iterator[Request]:
    """Requests without end; the same seed asks the same in the same order."""
    draw = random.Random(f"requests {seed}")
    kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
    askers = [one for one in customers for _ in range(1 if one.is_poor else RICH_WEIGHT)]
    while True:
        (kind,) = draw.choices(kinds, weights)
        tag = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        protocol = "h2" if draw.random() < HTTP2_SHARE else "http/1.1"
        leave = _leave(draw) if draw.random() < LEAVING_SHARE else None
        is_hostile = draw.random() < HOSTILE_SHARE
        (path,) = draw.choices(list(PATHS), list(PATHS.values()))
        asker, body = draw.choice(askers), _body(draw, path)
        yield Request(tag, asker, kind, protocol, leave, is_hostile, path, body)


def _leave(draw: random.Random) -> Leave:
    return Leave(draw.choice(POINTS), draw.choice(("close", "reset")), draw.random())


def _body(draw: random.Random, path: str) -> bytes:
    words = "lorem ipsum " * draw.randrange(1, 40)
    said, limit = f"{draw.randrange(10**6)} {words}", draw.randrange(5, 80)
    asked: dict[str, Any] = {
        "model": draw.choice(MODELS),
        "stream": draw.random() < STREAM_SHARE,
    }
    if path == RESPONSES_PATH:
        asked |= {"input": said, "max_output_tokens": limit}
    else:
        asked |= {"messages": [{"role": "user", "content": said}], "max_tokens": limit}
    if path == PATH and draw.random() < 0.1:
        asked["n"] = 2
    return json.dumps(asked).encode()
