"""Cursors: where the next page begins, opaque to callers.

A cursor is signed and bound to its list, so that one that was altered, or comes from another
account's list, is refused instead of read.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from meter.api.problems import ProblemError
from meter.identity.keys.key_text import Pepper

MAX_CURSOR_CHARS: Final = 512
_SIGNATURE_BYTES: Final = 12

T = TypeVar("T")
Position = Sequence[str | int]


class Cursors:
    """Makes and reads cursors under a server-side secret."""

    def __init__(self, pepper: Pepper) -> None:
        self._pepper = pepper

    def seal(self, scope: str, position: Position) -> str:
        """Write a position in the list that `scope` names."""
        body = json.dumps(list(position), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(scope, body) + body).decode().rstrip("=")

    def open(self, scope: str, cursor: str | None) -> list[str | int] | None:
        """Read a cursor of this list; None for the first page.

        Raises ProblemError (400, invalid_cursor) for anything that `seal` did not make.
        """
        if cursor is None:
            return None
        try:
            sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raise _invalid() from None
        signature, body = sealed[:_SIGNATURE_BYTES], sealed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(scope, body)):
            raise _invalid()
        position: list[str | int] = json.loads(body)
        if self.seal(scope, position) != cursor:
            raise _invalid()
        return position

    def open_instant(self, scope: str, cursor: str | None) -> tuple[datetime, str] | None:
        """Read a cursor whose position is an instant and an id."""
        position = self.open(scope, cursor)
        if position is None:
            return None
        return datetime.fromisoformat(str(position[0])), str(position[1])

    def next_page(
        self, scope: str, rows: list[T], limit: int, position: Callable[[T], Position]
    ) -> tuple[list[T], str | None]:
        """Split what was found, one more than the limit, into a page and the cursor after it."""
        page = rows[:limit]
        if len(rows) <= limit:
            return page, None
        return page, self.seal(scope, position(page[-1]))

    def _sign(self, scope: str, body: bytes) -> bytes:
        # No API key begins like this, so a signature is never the digest of a key.
        text = f"cursor:{scope}:{body.decode('utf-8', 'surrogateescape')}"
        return self._pepper.digest(text)[:_SIGNATURE_BYTES]


def _invalid() -> ProblemError:
    return ProblemError(
        400, "invalid_cursor", "the cursor is not one that this list gave; begin without one"
    )
