"""Provider keys in Postgres, sealed under the master key."""

import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import SYSTEM, Actor, AuditEvent
from meter.errors import Conflict, InvalidRequest, SealBroken
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.providers.key_refusal import KeyRefusal
from meter.sealing import MasterKey, SealContext, SecretText
from meter.values import light_value

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.providers")
_FIND_PROVIDER_KEY: Final = _QUERIES["find_provider_key"]
_LOCK_PROVIDER_KEY: Final = _QUERIES["lock_provider_key"]
_SAVE_PROVIDER_KEY: Final = _QUERIES["save_provider_key"]
_LIST_PROVIDER_KEYS: Final = _QUERIES["list_provider_keys"]
_NOTE_KEY_REFUSAL: Final = _QUERIES["note_key_refusal"]
_CLEAR_KEY_REFUSAL: Final = _QUERIES["clear_key_refusal"]
_FIND_OWN_KEYS: Final = _QUERIES["find_own_keys"]

# The owner of the key that requests of all accounts go out with.
SYSTEM_OWNER: Final = "system"
MAX_KEY_CHARS: Final = 512
HINT_CHARS: Final = 4
# A refusal of an account's own key keeps requests from it for this long, where credit may be used.
OWN_REFUSAL_STANDS_S: Final = 600.0
# A hint of a short key would give too much of it away.
SHORTEST_HINTED_KEY_CHARS: Final = 20


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An opened key, its version and when it was set, and the provider's last refusal of it.

    `refused_at` is when the refusal was stored, by the clock of the database.
    """

    plain: SecretText
    key_version: int
    updated_at: datetime
    refusal: KeyRefusal | None
    refused_at: datetime | None = None


@light_value
class OwnKey:
    """An account's own key of a provider; `is_refused` while the provider refused it lately.

    `plain` is None where the key was sealed under another master key: its owner has to set it
    again.
    """

    plain: SecretText | None
    is_refused: bool


@dataclass(frozen=True, slots=True)
class ProviderKeyListing:
    """The facts about a stored provider key that may be shown."""

    provider: str
    owner: str
    key_version: int
    hint: str
    updated_at: datetime
    refused_at: datetime | None = None
    refused_status: int | None = None
    refused_reason: str | None = None


def require_usable(plain: SecretText) -> str:
    """Return the text of a key that can be sent in a header. Raises InvalidRequest otherwise."""
    text = plain.reveal()
    if not text or len(text) > MAX_KEY_CHARS:
        raise InvalidRequest(f"a provider key has 1 to {MAX_KEY_CHARS} characters")
    if not all("!" <= char <= "~" for char in text):
        raise InvalidRequest("a provider key has visible ASCII characters only")
    return text


class PostgresProviderKeys:
    """Opens, sets and lists the sealed keys with which providers are called."""

    def __init__(self, pool: PostgresPool, master_key: MasterKey) -> None:
        self._pool = pool
        self._master_key = master_key

    async def find_key(self, provider: str, owner: str) -> StoredKey | None:
        """Return the opened key; None when none was set.

        Raises SealBroken when the key was sealed under another master key.
        """
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_FIND_PROVIDER_KEY, provider, owner)
        if row is None:
            return None
        refusal = None
        if row["refused_at"] is not None:
            refusal = KeyRefusal(row["refused_status"], row["refused_reason"])
        plain = self._open(row)
        return StoredKey(plain, row["key_version"], row["updated_at"], refusal, row["refused_at"])

    async def find_own_keys(self, account_id: str) -> dict[str, OwnKey]:
        """Return the keys that an account has stored, opened, by provider."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_FIND_OWN_KEYS, account_id, OWN_REFUSAL_STANDS_S)
        keys = {}
        for row in rows:
            try:
                plain = self._open(row)
            except SealBroken:
                plain = None
            keys[row["provider"]] = OwnKey(plain, row["is_refused"])
        return keys

    async def note_refusal(
        self, provider: str, owner: str, key_version: int, refusal: KeyRefusal
    ) -> None:
        """Store a refusal of this version of a key; of another version nothing is stored."""
        async with acquire(self._pool) as connection:
            await connection.execute(
                _NOTE_KEY_REFUSAL, provider, owner, key_version, refusal.status, refusal.reason
            )

    async def clear_refusal(
        self, provider: str, owner: str, key_version: int, older_than_s: float
    ) -> bool:
        """Forget a refusal of this version that is older than so many seconds; return whether."""
        async with acquire(self._pool) as connection:
            cleared = await connection.fetchval(
                _CLEAR_KEY_REFUSAL, provider, owner, key_version, older_than_s
            )
        return cleared is not None

    async def set_key(
        self,
        provider: str,
        owner: str,
        plain: SecretText,
        may_replace_sealed: bool = False,
        actor: Actor = SYSTEM,
    ) -> int:
        """Seal and store a key; return its version, which stays when the key is the same.

        Raises InvalidRequest for an unusable key, Conflict when another was stored meanwhile, and
        SealBroken when the stored one was sealed under another master key: with the wrong master
        key every API key is refused, so going on is a decision (`may_replace_sealed`).
        """
        async with acquire(self._pool) as connection, connection.transaction():
            return await self.write_key(
                connection, provider, owner, plain, may_replace_sealed, actor
            )

    async def write_key(
        self,
        connection: PostgresConnection,
        provider: str,
        owner: str,
        plain: SecretText,
        may_replace_sealed: bool,
        actor: Actor,
    ) -> int:
        """Do the same in a transaction of the caller. Raises as `set_key` does."""
        text = require_usable(plain)
        stored = await connection.fetchrow(_LOCK_PROVIDER_KEY, provider, owner)
        if stored is not None:
            try:
                opened = self._open(stored).reveal()
            except SealBroken:
                if not may_replace_sealed:
                    raise
            else:
                if hmac.compare_digest(opened.encode(), text.encode()):
                    return int(stored["key_version"])
        new_version = (stored["key_version"] if stored else 0) + 1
        sealed = self._master_key.seal(plain, SealContext(provider, owner, new_version))
        hint = f"...{text[-HINT_CHARS:]}" if len(text) >= SHORTEST_HINTED_KEY_CHARS else "..."
        status = await connection.execute(
            _SAVE_PROVIDER_KEY, provider, owner, new_version, sealed, hint
        )
        if status.endswith(" 0"):
            raise Conflict("another key was stored at the same moment; look and set it again")
        detail = {"key_version": new_version}
        if owner == SYSTEM_OWNER:
            event = AuditEvent("provider.key_set", f"provider:{provider}", None, detail)
        else:
            event = AuditEvent("provider_key.set", f"provider_key:{provider}", owner, detail)
        await write_audit(connection, actor, event)
        return new_version

    def _open(self, stored: "Record") -> SecretText:
        context = SealContext(stored["provider"], stored["owner"], stored["key_version"])
        return self._master_key.open(stored["sealed"], context)

    async def list_keys(self) -> list[ProviderKeyListing]:
        """List the keys of the house that are set; those of accounts are not among them."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PROVIDER_KEYS)
        return [ProviderKeyListing(**dict(row)) for row in rows]
