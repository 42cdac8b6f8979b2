"""Keys of providers that accounts store and pay for themselves.

A key is tried by a free call before it is stored, and sealed under the id of its owner. It serves
the requests of that account alone.
"""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachetools import TTLCache

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import MeterError, NotFound, NotPermitted
from meter.identity.keys.key_rights import (
    Administrator,
    KeyEditor,
    permit_ending_provider_key,
    permit_provider_keys,
)
from meter.identity.keys.key_store import KeyStore, LockedKeys
from meter.identity.principal import OwnKeyMode, OwnKeyTerms
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.providers.key_service import KeyNotTried, KeyRefused, try_key
from meter.providers.key_store import (
    SYSTEM_OWNER,
    PostgresProviderKeys,
    ProviderKeyListing,
    require_usable,
)
from meter.providers.provider import Provider
from meter.providers.provider_store import ProviderStore
from meter.sealing import SecretText

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_QUERIES: Final = queries("meter.providers")
_LIST_OWN_KEYS: Final = _QUERIES["list_own_keys"]
_DELETE_OWN_KEY: Final = _QUERIES["delete_own_key"]
_LOAD_OWN_KEY_TERMS: Final = _QUERIES["load_own_key_terms"]
_SAVE_OWN_KEY_TERMS: Final = _QUERIES["save_own_key_terms"]

# Keys that one process tries at the same time: each keeps a connection to a provider.
MOST_TRIED_AT_ONCE: Final = 8
# Keys of one account that providers refused, within the time: nobody may try stolen keys here.
MOST_REFUSED: Final = 20
REFUSED_WITHIN_S: Final = 3_600.0
ACCOUNTS_REMEMBERED: Final = 10_000


class TooManyRefusedKeys(MeterError):
    """The account tried so many keys that providers refuse that it has to wait."""


@dataclass(frozen=True, slots=True)
class StoredOwnKeys:
    """The terms by which an account uses its own keys, and the keys without their secrets."""

    terms: OwnKeyTerms
    keys: tuple[ProviderKeyListing, ...]


class OwnKeyService:
    """Lists, sets and deletes the provider keys of accounts. Raises StoreUnavailable in an outage.

    `editor` is the party that asks, by whose rights the change is judged; `actor` names it in the
    audit log. Methods raise NotFound for an unknown account, and NotPermitted where the editor may
    not make the change.
    """

    def __init__(
        self, pool: PostgresPool, keys: PostgresProviderKeys, providers: ProviderStore
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._providers = providers
        self._locking = KeyStore(pool)
        self._trying: set[str] = set()
        self._refused: TTLCache[str, int] = TTLCache(ACCOUNTS_REMEMBERED, REFUSED_WITHIN_S)

    async def list_stored(self, account_id: str) -> StoredOwnKeys:
        """Return the terms by which an account uses its own keys, and the keys; also where it has
        none. Raises NotFound for an unknown account.
        """
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_LOAD_OWN_KEY_TERMS, account_id)
            rows = await connection.fetch(_LIST_OWN_KEYS, account_id)
        if row is None:
            raise NotFound(f"there is no user '{account_id}'")
        return StoredOwnKeys(
            OwnKeyTerms(OwnKeyMode(row["mode"]), row["may_fall_back_to_credit"], row["fee_bps"]),
            tuple(ProviderKeyListing(**dict(one)) for one in rows),
        )

    async def set_key(
        self,
        actor: Actor,
        account_id: str,
        provider_id: str,
        plain: SecretText,
        editor: KeyEditor,
    ) -> None:
        """Store a key that the provider accepts, in place of the one before.

        Raises InvalidRequest for a key that no header can carry, KeyRefused where the provider does
        not accept the key, KeyNotTried where the provider cannot be asked, TooManyRefusedKeys.
        """
        require_usable(plain)
        provider = await self._find_provider(provider_id)
        # The rights are judged before the provider is asked, and again for the write.
        async with self._permitted(account_id, editor):
            pass
        await self._try(account_id, provider, plain)
        async with self._permitted(account_id, editor) as keys:
            kept = await self._providers.keep(keys.connection, provider_id)
            if kept.base_url != provider.base_url:
                raise KeyNotTried(
                    f"the address of {provider_id} was changed meanwhile; set the key again"
                )
            await self._keys.write_key(
                keys.connection,
                provider.id,
                account_id,
                plain,
                may_replace_sealed=True,
                actor=actor,
            )

    async def delete_key(
        self, actor: Actor, account_id: str, provider_id: str, editor: KeyEditor
    ) -> None:
        """Delete a key; no request goes out with it from a second later on. Raises NotFound."""
        async with self._permitted(account_id, editor, is_ending=True) as keys:
            deleted = await keys.connection.fetchval(_DELETE_OWN_KEY, provider_id, account_id)
            if deleted is None:
                raise NotFound(f"no key of {provider_id} is stored")
            event = AuditEvent(
                "provider_key.deleted", f"provider_key:{provider_id}", account_id, {}
            )
            await write_audit(keys.connection, actor, event)

    async def change_terms(
        self, actor: Actor, account_id: str, changes: Mapping[str, Any], editor: KeyEditor
    ) -> None:
        """Change terms by the names of the fields of OwnKeyTerms; the fee is the plan's."""
        async with self._permitted(account_id, editor) as keys:
            row = await keys.connection.fetchrow(_LOAD_OWN_KEY_TERMS, account_id)
            assert row is not None
            before = {name: row[name] for name in ("mode", "may_fall_back_to_credit")}
            after = {**before, **changes}
            differences = changes_between(before, after)
            if differences:
                await keys.connection.execute(_SAVE_OWN_KEY_TERMS, account_id, *after.values())
                event = AuditEvent(
                    "provider_key.terms_changed", "provider_keys", account_id, differences
                )
                await write_audit(keys.connection, actor, event)

    async def _find_provider(self, provider_id: str) -> Provider:
        enabled = {one.id: one for one in await self._providers.list_all() if one.is_enabled}
        provider = enabled.get(provider_id)
        if provider is None:
            raise NotFound(
                f"there is no provider '{provider_id}' that requests go to; there are: "
                + ", ".join(enabled)
            )
        return provider

    async def _try(self, account_id: str, provider: Provider, plain: SecretText) -> None:
        if self._refused.get(account_id, 0) >= MOST_REFUSED:
            raise TooManyRefusedKeys(
                f"providers refused {MOST_REFUSED} keys of this account within an hour; wait"
            )
        if account_id in self._trying or len(self._trying) >= MOST_TRIED_AT_ONCE:
            raise KeyNotTried("the key was not stored, because others are being tried; try again")
        self._trying.add(account_id)
        try:
            await try_key(provider, plain, may_be_forced=False)
        except KeyRefused:
            self._refused[account_id] = self._refused.get(account_id, 0) + 1
            raise
        finally:
            self._trying.discard(account_id)

    @asynccontextmanager
    async def _permitted(
        self, account_id: str, editor: KeyEditor, is_ending: bool = False
    ) -> "AsyncIterator[LockedKeys]":
        """Lock the account in a transaction, and judge the editor. Raises NotPermitted."""
        async with self._locking.locked(account_id) as keys:
            if account_id == SYSTEM_OWNER:
                raise NotPermitted(
                    f"the account '{SYSTEM_OWNER}' has no provider keys of its own, because those"
                    " of the house are stored under this name; use another account"
                )
            if not isinstance(editor, Administrator):
                rights = await keys.load_rights(editor.caller_id)
                judge = permit_ending_provider_key if is_ending else permit_provider_keys
                judge(rights, editor)
            yield keys
