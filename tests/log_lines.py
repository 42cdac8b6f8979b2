"""Lines as Envoy writes them, and what is read of them, for tests of the access-log file."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
# Long after any line that these tests write has ended.
LATER = STARTED + timedelta(hours=1)


def fields(hold_id: UUID | None = None, **changes: Any) -> dict[str, Any]:
    """The members of the line of a JSON reply; of a request without a hold, given none."""
    return {
        "account_id": "acme",
        "code": 200,
        "details": "via_upstream",
        "duration_ms": 1234,
        "endpoint": "chat_completions",
        "first_upstream_byte_ms": 30,
        "flags": "-",
        "generation_id": "gen-header",
        "hold_id": None if hold_id is None else hold_id.hex,
        "is_streaming": False,
        "request_bytes": 14,
        "request_id": str(uuid4()),
        "response_bytes": 328,
        "route": "inference",
        "start_time": STARTED.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "DownstreamEnd",
        "upstream_attempts": 1,
        "upstream_sent_ms": 1,
        "upstream_status": None,
        "usage": {
            "id": "gen-body",
            "prompt_tokens": 12,
            "completion_tokens": 34,
            "cached_tokens": 3,
            "reasoning_tokens": 5,
            "cost": 1.234567e-06,
            "is_byok": False,
        },
        **changes,
    }


def line(hold_id: UUID | None = None, **changes: Any) -> bytes:
    """The same as a line, without its line feed."""
    return json.dumps(fields(hold_id, **changes)).encode()


def undecided(**changes: Any) -> bytes:
    """The line of a request whose client left during the check."""
    seen: dict[str, Any] = {
        "code": 0,
        "details": "downstream_remote_disconnect",
        "flags": "DC",
        "first_upstream_byte_ms": None,
        "upstream_attempts": 0,
        "upstream_sent_ms": None,
        "usage": None,
        "generation_id": None,
        "is_streaming": None,
    }
    return line(None, **{**seen, **changes})
