"""Operator tokens in Postgres: digests only.

A token is 32 random bytes, so an unkeyed SHA-256 tells nothing about it.
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
    """SHA-256 of an operator token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class OperatorStore:
    """Admits and recognises operators. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def admit(self, name: str, token: SecretText) -> None:
        """Accept this token under the name; the former token of that name ends at once."""
        async with acquire(self._pool) as connection:
            await connection.execute(_PUT_OPERATOR, name, operator_digest(token.reveal()))

    async def find_operator(self, token: str) -> str | None:
        """Whose token this is; None for every wrong one, which all take the same time."""
        presented = operator_digest(token)
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_OPERATOR_DIGESTS, MOST_OPERATORS)
        matches = [
            str(row["name"]) for row in rows if hmac.compare_digest(presented, bytes(row["digest"]))
        ]
        return matches[0] if matches else None
