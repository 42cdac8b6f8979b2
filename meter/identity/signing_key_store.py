"""Keys that sign passes, in Postgres, sealed under the master key.

One key signs at a time: the newest whose `signs_from` has passed. A new key is published before it
signs, so that verifiers know it. An old key stays published until the last pass that it signed has
expired. All times are from the clock of the process, not of Postgres.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import SYSTEM, Actor, AuditEvent
from meter.clock import Clock
from meter.errors import NotFound
from meter.identity.passes import MAX_PASS_LIFETIME_S
from meter.jwts.signing import SigningAlgorithm, new_signing_key
from meter.jwts.terms import LEEWAY_S
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.sealing import MasterKey, SecretText, SigningKeyContext

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.identity")
_LIST_SIGNING_KEYS: Final = _QUERIES["list_signing_keys"]
_FIND_SIGNING_KEY: Final = _QUERIES["find_signing_key"]
_LOCK_SIGNING_KEYS: Final = _QUERIES["lock_signing_keys"]
_FIND_YOUNGEST_SIGNING_KEY: Final = _QUERIES["find_youngest_signing_key"]
_DELETE_SIGNING_KEY: Final = _QUERIES["delete_signing_key"]
_DELETE_ENDED_SIGNING_KEYS: Final = _QUERIES["delete_ended_signing_keys"]
_DELETE_COMING_SIGNING_KEYS: Final = _QUERIES["delete_coming_signing_keys"]
_CREATE_SIGNING_KEY: Final = _QUERIES["create_signing_key"]
_RETIRE_SIGNING_KEY: Final = _QUERIES["retire_signing_key"]

SYSTEM_OWNER: Final = "system"
SEAL_VERSION: Final = 1
# Longer than verifiers and readers of the published key set cache it.
PUBLISH_AHEAD: Final = timedelta(minutes=2)
# Added to the longest lifetime and the leeway, because the clocks of machines differ.
CLOCK_DIFFERENCE: Final = timedelta(minutes=1)
STAYS_PUBLISHED: Final = timedelta(seconds=MAX_PASS_LIFETIME_S + LEEWAY_S) + CLOCK_DIFFERENCE


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key: its public half, and its private half sealed."""

    kid: str
    algorithm: SigningAlgorithm
    public_jwk: Mapping[str, Any]
    sealed: bytes = field(repr=False)
    created_at: datetime
    signs_from: datetime
    published_until: datetime | None


class PublishedKeys:
    """Implements `meter.jwts.passes.PassKeys`: the public halves of signing keys."""

    def __init__(self, pool: PostgresPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def load_public_keys(self) -> Mapping[str, Mapping[str, Any]]:
        """Return JWKs by `kid`. Raises StoreUnavailable."""
        return {key.kid: key.public_jwk for key in await self.list_keys()}

    async def list_keys(self) -> list[SigningKey]:
        """Return the keys that are published now, newest first."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_SIGNING_KEYS, self._clock.now())
        return [_signing_key(row) for row in rows]


class SigningKeys:
    """Creates, finds, retires and removes signing keys. Raises StoreUnavailable in an outage."""

    def __init__(
        self,
        pool: PostgresPool,
        master_key: MasterKey,
        clock: Clock,
        algorithm: SigningAlgorithm,
    ) -> None:
        self._pool = pool
        self._master_key = master_key
        self._clock = clock
        self.algorithm: Final[SigningAlgorithm] = algorithm

    async def current(self) -> tuple[SigningKey, SecretText]:
        """Return the key that signs now, with its private half; create the first if there is none.

        Raises SealBroken where the key was sealed under another master key.
        """
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_SIGNING_KEY, self._clock.now())
        key = await self._ensure_one() if row is None else _signing_key(row)
        return key, self._master_key.open(key.sealed, _context(key.kid))

    async def ensure(self, oldest: timedelta, actor: Actor) -> SigningKey | None:
        """Create a key if there is none, or the newest is too old or has another algorithm.

        Returns the new key, None where none was due. Several meters may call this at once.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_SIGNING_KEYS)
            youngest = await connection.fetchrow(_FIND_YOUNGEST_SIGNING_KEY)
            now = self._clock.now()
            if youngest is None:
                return await self._make(connection, now, now, actor)
            is_due = youngest["signs_from"] + oldest <= now
            if not is_due and youngest["algorithm"] == self.algorithm:
                return None
            return await self._make(connection, now, now + PUBLISH_AHEAD, actor)

    async def rotate(self, immediately: bool, actor: Actor) -> SigningKey:
        """Create a new key; it signs after PUBLISH_AHEAD, or at once."""
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_SIGNING_KEYS)
            now = self._clock.now()
            return await self._make(
                connection, now, now if immediately else now + PUBLISH_AHEAD, actor
            )

    async def remove(self, kid: str, actor: Actor) -> None:
        """Remove a key at once; its passes are refused, and another key signs. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_SIGNING_KEYS)
            if await connection.fetchval(_DELETE_SIGNING_KEY, kid) is None:
                raise NotFound("there is no such signing key")
            await write_audit(
                connection, actor, AuditEvent("signing_key.removed", f"signing_key:{kid}")
            )
            now = self._clock.now()
            # A retired key must not sign again, and a key that signs later does not sign yet.
            left = await connection.fetchrow(_FIND_SIGNING_KEY, now)
            if left is None or left["published_until"] is not None:
                await self._make(connection, now, now, actor)

    async def forget_ended(self) -> int:
        """Delete keys whose last pass has expired; returns their number."""
        async with acquire(self._pool) as connection:
            return len(await connection.fetch(_DELETE_ENDED_SIGNING_KEYS, self._clock.now()))

    async def _ensure_one(self) -> SigningKey:
        """Return the key that signs now, or a new one: none was found before the lock was taken.

        Either there is no key yet, or the clocks of two machines differ.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_SIGNING_KEYS)
            now = self._clock.now()
            row = await connection.fetchrow(_FIND_SIGNING_KEY, now)
            if row is not None:
                return _signing_key(row)
            return await self._make(connection, now, now, SYSTEM)

    async def _make(
        self, connection: PostgresConnection, now: datetime, signs_from: datetime, actor: Actor
    ) -> SigningKey:
        new = new_signing_key(self.algorithm)
        await connection.execute(_DELETE_COMING_SIGNING_KEYS, now)
        row = await connection.fetchrow(
            _CREATE_SIGNING_KEY,
            new.kid,
            self.algorithm,
            json.dumps(new.public_jwk),
            self._master_key.seal(new.private, _context(new.kid)),
            now,
            signs_from,
        )
        await connection.execute(_RETIRE_SIGNING_KEY, new.kid, now, signs_from + STAYS_PUBLISHED)
        detail = {"algorithm": self.algorithm, "signs_from": signs_from.isoformat()}
        await write_audit(
            connection,
            actor,
            AuditEvent("signing_key.made", f"signing_key:{new.kid}", None, detail),
        )
        assert row is not None
        return _signing_key(row)


def _context(kid: str) -> SigningKeyContext:
    return SigningKeyContext(SYSTEM_OWNER, kid, SEAL_VERSION)


def _signing_key(row: "Record") -> SigningKey:
    return from_row(SigningKey, row, kid=row["id"], public_jwk=json.loads(row["public_jwk"]))
