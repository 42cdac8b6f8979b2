"""Operator tokens in Postgres, as digests.

A token is 32 random bytes, so an unkeyed SHA-256 reveals nothing about it.
"""

import hashlib
import hmac
from typing import Final

from meter.postgres.pool import PostgresPool, acquire, queries
from meter.sealing import SecretText

_QUERIES: Final = queries("meter.identity")
_PUT_OPERATOR: Final = _QUERIES["put_operator"]
_LIST_OPERATOR_DIGESTS: Final = _QUERIES["list_operator_digests"]

MOST_OPERATORS: Final = 32


def operator_digest(token: str) -> bytes:
    """Return the SHA-256 digest of an operator token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class OperatorStore:
    """Stores operators and finds them by their tokens. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def admit(self, name: str, token: SecretText) -> None:
        """Accept this token for the operator; a former token of that name ends at once."""
        async with acquire(self._pool) as connection:
            await connection.execute(_PUT_OPERATOR, name, operator_digest(token.reveal()))

    async def find_operator(self, token: str) -> str | None:
        """Return the name of the operator with this token, None for a wrong token.

        Every wrong token takes the same time, so that the time reveals nothing.
        """
        presented = operator_digest(token)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_OPERATOR_DIGESTS, MOST_OPERATORS)
        matches = [
            str(row["name"]) for row in rows if hmac.compare_digest(presented, bytes(row["digest"]))
        ]
        return matches[0] if matches else None
