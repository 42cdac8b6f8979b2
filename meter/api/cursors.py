"""Cursors: opaque positions in lists, with which callers ask for the next page.

A cursor is signed and bound to its list, so that a cursor that was altered, or that comes from the
list of another account, is refused instead of read.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from meter.api.fields import PageQuery
from meter.api.problems import ProblemError
from meter.identity.keys.key_text import Pepper

_SIGNATURE_BYTES: Final = 12

T = TypeVar("T")
K = TypeVar("K")
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

    async def page(
        self,
        scope: str,
        query: PageQuery,
        fetch: Callable[[K | None, int], Awaitable[list[T]]],
        position: Callable[[T], Position],
        read: Callable[..., K],
    ) -> tuple[list[T], str | None]:
        """Return the page that `query` asks for, and the cursor of the next page, None at the end.

        `position` is the position of a row, and `read` turns it into the form that `fetch` takes.
        `fetch` returns at most so many rows after a position. It is asked for one row more than
        the page has, which shows whether there is a next page.
        """
        place = self.open(scope, query.cursor)
        rows = await fetch(None if place is None else read(*place), query.limit + 1)
        page = rows[: query.limit]
        is_last = len(rows) <= query.limit
        return page, None if is_last else self.seal(scope, position(page[-1]))

    def _sign(self, scope: str, body: bytes) -> bytes:
        # No API key begins like this, so a signature is never the digest of a key.
        text = f"cursor:{scope}:{body.decode('utf-8', 'surrogateescape')}"
        return self._pepper.digest(text)[:_SIGNATURE_BYTES]


def instant_and_id(instant: str, row_id: str) -> tuple[datetime, str]:
    """Read the position of a row in a list that is in the order of an instant and an id."""
    return datetime.fromisoformat(instant), row_id


def _invalid() -> ProblemError:
    return ProblemError(
        400, "invalid_cursor", "the cursor is not one that this list gave; begin without one"
    )
