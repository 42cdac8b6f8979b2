"""Runs the features of one client against the gateway and prints one line of JSON for each.

A client's program names its features by ``@feature`` and ends with ``main(ask)``. A feature that
returns has worked; one that raises tells the class that a user of the client would see. ``ask``
is one chat whose key, model, text and limit can be changed, by which every error is provoked.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

GATEWAY = os.environ["FOREIGN_GATEWAY"]
V1 = f"{GATEWAY}/v1"
OPENROUTER_BASE = f"{GATEWAY}/api/v1"
KEY = os.environ["FOREIGN_KEY"]
MODEL = "openai/gpt-4o-mini"
CLAUDE = "anthropic/claude-sonnet-4.5"
EMBEDDINGS = "openai/text-embedding-3-small"
REFUSING_MODEL = os.environ["FOREIGN_REFUSING_MODEL"]
PIXEL_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
PIXEL = f"data:image/png;base64,{PIXEL_BASE64}"
SIMULATED = "simulated"
OVERSIZED_CHARS = 13 * 2**20
"""More text than a body may have."""
BUSY_ATTEMPTS = 9
ERRORS: dict[int, dict[str, Any]] = {
    400: {"max_tokens": -1},
    401: {"key": "tk-nobody-0123456789"},
    402: {"key": os.environ["FOREIGN_POOR_KEY"]},
    403: {"key": os.environ["FOREIGN_BARRED_KEY"]},
    404: {"model": "openai/gpt-4o-minni"},
    413: {"text": "a " * (OVERSIZED_CHARS // 2)},
    429: {"key": os.environ["FOREIGN_LIMITED_KEY"]},
    503: {"model": REFUSING_MODEL},
}

_features: list[tuple[str, Callable[[], object]]] = []


def feature(name: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Register a function as the use of one feature."""

    def register(use: Callable[[], object]) -> Callable[[], object]:
        _features.append((name, use))
        return use

    return register


def expect(condition: object, found: object) -> None:
    """Fail the feature where the client gave something else than its users expect."""
    if not condition:
        raise AssertionError(f"unexpected: {found!r}"[:300])


def main(ask: Callable[..., object] | None = None) -> None:
    """Use every feature, then provoke every error; a program's last statement."""
    wanted = set(sys.argv[1:])
    for name, use in _features:
        if not wanted or name in wanted:
            told = _attempt(use)
            if told.get("error_status") == 503:
                # The gateway refuses what it cannot decide in time on a busy machine.
                told = _attempt(use)
            _tell({"feature": name, **told})
    for status, changed in ERRORS.items() if ask is not None else ():
        if not wanted or str(status) in wanted:
            if status == 429:
                # The first of a minute is let through.
                _attempt(lambda: ask(**changed))  # noqa: B023
            told = _attempt(lambda: ask(**changed))  # noqa: B023
            for _ in range(BUSY_ATTEMPTS):
                # A body that large is read apart, and not in time on a busy machine.
                if status != 413 or told.get("error_status") != 503:
                    break
                told = _attempt(lambda: ask(**changed))  # noqa: B023
            _tell({"status": status, **told})


def _attempt(use: Callable[[], object]) -> dict[str, object]:
    try:
        use()
    except BaseException as error:
        kind = type(error)
        known = getattr(error, "status_code", None) or getattr(error, "code", None)
        return {
            "error": kind.__qualname__,
            "module": kind.__module__.partition(".")[0],
            "error_status": known if isinstance(known, int) else None,
            "message": str(error)[:600],
        }
    return {}


def _tell(told: dict[str, object]) -> None:
    print(json.dumps(told), flush=True)
