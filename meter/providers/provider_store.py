"""Providers in Postgres. The base URL of `openrouter` is a setting of the meter."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, NotFound
from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.pricing.prices import DEFAULT_PROVIDER
from meter.providers.dialects import DIALECTS
from meter.providers.openrouter import BASE_URL
from meter.providers.provider import DialectName, Provider, ProviderState

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.providers")
_LIST_PROVIDERS: Final = _QUERIES["list_providers"]
_LOCK_PROVIDER: Final = _QUERIES["lock_provider"]
_KEEP_PROVIDER: Final = _QUERIES["keep_provider"]
_COUNT_OWN_KEYS: Final = _QUERIES["count_own_keys"]
_INSERT_PROVIDER: Final = _QUERIES["insert_provider"]
_SAVE_PROVIDER: Final = _QUERIES["save_provider"]
_UNLIST_MODELS: Final = _QUERIES["unlist_models"]
_COUNT_LIVE_HOLDS: Final = _QUERIES["count_live_holds"]
_LIST_SYNCS: Final = _QUERIES["list_syncs"]
_DELETE_PROVIDER: Final = _QUERIES["delete_provider"]

MOST_PROVIDERS: Final = 100
_MOST_COUNTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class ProviderTerms:
    """The terms of a provider that an administrator sets; the base URL was checked."""

    base_url: str
    model_prefix: str
    is_free: bool


@dataclass(frozen=True, slots=True)
class SyncState:
    """The last sync of a catalogue that worked, and since when and why it fails; None: it works."""

    synced_at: datetime | None
    models: int
    failed_at: datetime | None
    failure: str | None


class ProviderStore:
    """Makes, changes, lists and deletes providers. Raises StoreUnavailable during an outage."""

    def __init__(self, pool: PostgresPool, openrouter_base_url: str = BASE_URL) -> None:
        self._pool = pool
        self._openrouter_base_url = openrouter_base_url

    async def list_all(self) -> list[Provider]:
        """Return all providers, disabled ones too; `openrouter` is the first."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_PROVIDERS)
        return [self._to_provider(row) for row in rows]

    async def list_syncs(self) -> dict[str, SyncState]:
        """Return the state of the catalogue of each provider that was synced or tried."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_SYNCS)
        return {row["provider"]: from_row(SyncState, row) for row in rows}

    async def create(
        self, provider_id: str, dialect: DialectName, terms: ProviderTerms, actor: Actor
    ) -> Provider:
        """Make a provider. Raises Conflict where the id is taken, and for one too many."""
        async with acquire(self._pool) as connection, connection.transaction():
            known = await connection.fetch(_LIST_PROVIDERS)
            if len(known) >= MOST_PROVIDERS:
                raise Conflict(f"there are {MOST_PROVIDERS} providers already; delete one")
            inserted = await connection.fetchval(
                _INSERT_PROVIDER,
                provider_id,
                dialect.value,
                terms.base_url,
                terms.model_prefix,
                terms.is_free,
            )
            if inserted is None:
                raise Conflict(f"there is a provider {provider_id} already")
            detail = {"dialect": dialect.value, **_members(terms)}
            await _audit(connection, actor, "provider.created", provider_id, detail)
        return Provider(
            provider_id,
            DIALECTS[dialect],
            terms.base_url,
            model_prefix=terms.model_prefix,
            is_free=terms.is_free,
        )

    async def change(self, provider_id: str, changes: Mapping[str, Any], actor: Actor) -> Provider:
        """Change terms of a provider, by the names of `ProviderTerms`; return the provider.

        Raises NotFound, and Conflict for `openrouter`, whose terms are settings, and for another
        base URL while accounts have stored keys: these were stored for the address of before.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            before = await self._lock(connection, provider_id)
            if not changes:
                return before
            if provider_id == DEFAULT_PROVIDER:
                raise Conflict(
                    "the base URL of openrouter is the setting TOLLKEEPER_PROVIDER_BASE_URL"
                )
            old = _members(before)
            terms = ProviderTerms(**{**old, **changes})
            if terms.base_url != before.base_url:
                stored = await connection.fetchval(_COUNT_OWN_KEYS, provider_id)
                if stored:
                    raise Conflict(
                        f"accounts have stored keys for {provider_id} ({stored} in all), which"
                        " would be sent to the new address: make another provider for it, or have"
                        " these keys deleted first"
                    )
            await self._save(connection, provider_id, terms, before.state)
            if differing := changes_between(old, _members(terms)):
                await _audit(connection, actor, "provider.changed", provider_id, differing)
            return self._to_provider(await connection.fetchrow(_LOCK_PROVIDER, provider_id))

    async def keep(self, connection: PostgresConnection, provider_id: str) -> Provider:
        """Return a provider that stays as it is until the caller's transaction ends.

        Raises NotFound.
        """
        row = await connection.fetchrow(_KEEP_PROVIDER, provider_id)
        if row is None:
            raise NotFound(f"there is no provider {provider_id}")
        return self._to_provider(row)

    async def set_state(self, provider_id: str, state: ProviderState, actor: Actor) -> Provider:
        """Enable or disable a provider; the models that only it lists are unlisted meanwhile.

        Raises NotFound.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            before = await self._lock(connection, provider_id)
            if before.state is not state:
                base_url = None if provider_id == DEFAULT_PROVIDER else before.base_url
                terms = ProviderTerms(base_url or "", before.model_prefix, before.is_free)
                await self._save(connection, provider_id, terms, state)
                if state is ProviderState.DISABLED:
                    await connection.execute(_UNLIST_MODELS, provider_id)
                await _audit(connection, actor, f"provider.{state.value}", provider_id, {})
            return self._to_provider(await connection.fetchrow(_LOCK_PROVIDER, provider_id))

    async def delete(self, provider_id: str, actor: Actor) -> None:
        """Delete a provider with its keys and offers; its prices and its usage stay.

        Raises NotFound, and Conflict for `openrouter`, and while a route, or a request that is not
        settled yet, needs the provider.
        """
        async with acquire(self._pool) as connection:
            try:
                async with connection.transaction():
                    await self._lock(connection, provider_id)
                    if provider_id == DEFAULT_PROVIDER:
                        raise Conflict("openrouter cannot be deleted; disable it instead")
                    live = await connection.fetchval(_COUNT_LIVE_HOLDS, provider_id, _MOST_COUNTED)
                    if live:
                        raise Conflict(
                            f"{live} requests to {provider_id} are not settled yet: disable it,"
                            " and delete it once they are"
                        )
                    await connection.execute(_UNLIST_MODELS, provider_id)
                    await connection.execute(_DELETE_PROVIDER, provider_id)
                    await _audit(connection, actor, "provider.deleted", provider_id, {})
            except asyncpg.ForeignKeyViolationError:
                raise Conflict(
                    f"a route leads to {provider_id}; change or delete the route first"
                ) from None

    async def _lock(self, connection: PostgresConnection, provider_id: str) -> Provider:
        row = await connection.fetchrow(_LOCK_PROVIDER, provider_id)
        if row is None:
            raise NotFound(f"there is no provider {provider_id}")
        return self._to_provider(row)

    async def _save(
        self,
        connection: PostgresConnection,
        provider_id: str,
        terms: ProviderTerms,
        state: ProviderState,
    ) -> None:
        await connection.execute(
            _SAVE_PROVIDER,
            provider_id,
            terms.base_url or None,
            terms.model_prefix,
            terms.is_free,
            state.value,
        )

    def _to_provider(self, row: "Record | None") -> Provider:
        assert row is not None
        return Provider(
            id=row["id"],
            dialect=DIALECTS[DialectName(row["dialect"])],
            base_url=(row["base_url"] or self._openrouter_base_url).rstrip("/"),
            state=ProviderState(row["state"]),
            model_prefix=row["model_prefix"],
            is_free=row["is_free"],
        )


def _members(terms: ProviderTerms | Provider) -> dict[str, Any]:
    return {
        "base_url": terms.base_url,
        "model_prefix": terms.model_prefix,
        "is_free": terms.is_free,
    }


async def _audit(
    connection: PostgresConnection,
    actor: Actor,
    action: str,
    provider_id: str,
    detail: Mapping[str, Any],
) -> None:
    event = AuditEvent(action, f"provider:{provider_id}", None, detail)
    await write_audit(connection, actor, event)
