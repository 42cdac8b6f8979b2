"""The twelve ways in which requests of this campaign are abandoned."""

import random
from dataclasses import dataclass
from typing import Any, Final

from chaos.records import TAG_HEADER

KIND_HEADER: Final = "x-chaos-abandoned"
THINKS_MS: Final = 1_500
# The client is away before the upstream answers, even on a busy machine most of the time.
LEAVES_AFTER_S: Final = 0.5
MODELS: Final = ("openai/gpt-4o-mini", "openai/gpt-4o")
# How many words a prompt has; some requests name no limit of their own.
PROMPT_WORDS: Final = (40, 100, 400, 1_500)
LIMITS: Final = (None, None, 60, 500)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to be abandoned.

    `behaviour` is what the upstream is told. The client leaves after `leaves_after_s`, by a reset
    with `is_reset`; None stays until the reply ends or breaks off.
    """

    name: str
    behaviour: dict[str, Any]
    is_stream: bool
    leaves_after_s: float | None = LEAVES_AFTER_S
    is_reset: bool = False

    def to_behaviour(self) -> dict[str, Any]:
        """Return the behaviour for the requests of this kind."""
        return {"match": {"header": {KIND_HEADER: self.name}}, **self.behaviour}


THINKS: Final = {"delay_ms": THINKS_MS}
BEGINS: Final = {"body_delay_ms": THINKS_MS}
KINDS: Final = (
    Kind("json-before-headers", THINKS, is_stream=False),
    Kind("json-reset-before-headers", THINKS, is_stream=False, is_reset=True),
    Kind("sse-before-headers", THINKS, is_stream=True),
    Kind("json-after-headers", BEGINS, is_stream=False),
    Kind("sse-after-headers", BEGINS, is_stream=True),
    Kind("sse-in-mid-stream", {"chunk_delay_ms": 120}, is_stream=True),
    Kind("json-without-any-record", {**BEGINS, "omit_generation": True}, is_stream=False),
    Kind("json-cut", {"cut_after_bytes": 30}, is_stream=False, leaves_after_s=None),
    Kind(
        "json-cut-without-an-id",
        {"cut_after_bytes": 1, "omit_generation_id": True},
        is_stream=False,
        leaves_after_s=None,
    ),
    Kind("sse-cut", {"cut_after_bytes": 400}, is_stream=True, leaves_after_s=None),
    Kind("sse-silent-about-usage", {"silent_usage": True}, is_stream=True, leaves_after_s=None),
    # Envoy is killed with these under way: no log has them.
    Kind("in-no-log", {"delay_ms": 3 * THINKS_MS}, is_stream=False, leaves_after_s=None),
)
LOST: Final = KINDS[-1]


def request_body(draw: random.Random, tag: str, is_stream: bool) -> dict[str, Any]:
    """Return a request of a random size. The upstream's bill has the tag as its trace id."""
    limit = draw.choice(LIMITS)
    body: dict[str, Any] = {
        "model": draw.choice(MODELS),
        "stream": is_stream,
        "messages": [{"role": "user", "content": f"{tag} " + "word " * draw.choice(PROMPT_WORDS)}],
        "trace": {"trace_id": tag},
    }
    return body if limit is None else {**body, "max_tokens": limit}


def request_headers(key: str, tag: str, kind: Kind | None) -> list[tuple[str, str]]:
    """Return the headers of a request; without a kind the upstream answers as it should."""
    headers = [
        ("authorization", f"Bearer {key}"),
        ("content-type", "application/json"),
        (TAG_HEADER, tag),
    ]
    return headers if kind is None else [*headers, (KIND_HEADER, kind.name)]
