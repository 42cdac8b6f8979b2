"""The member ``trace`` of a request: words of the client's that come back in its report."""

import json
from dataclasses import dataclass, field

KEYS_MAX = 16
KEY_MAX_CHARS = 128
VALUE_MAX_CHARS = 512
_SPECIAL = frozenset({"trace_id", "trace_name", "span_name", "generation_name", "parent_span_id"})


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace id, where one was sent, and every key without a meaning of its own."""

    trace_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def read_trace(given: object) -> Trace:
    """Return the members of ``trace`` that are passed on. Anything but an object is ignored."""
    if not isinstance(given, dict):
        return Trace()
    trace_id = given.get("trace_id")
    kept = [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in given.items()
        if (name not in _SPECIAL and len(name) <= KEY_MAX_CHARS and value is not None)
    ]
    return Trace(
        trace_id=trace_id[:VALUE_MAX_CHARS] if isinstance(trace_id, str) and trace_id else None,
        metadata={name: text[:VALUE_MAX_CHARS] for name, text in kept[:KEYS_MAX]},
    )
