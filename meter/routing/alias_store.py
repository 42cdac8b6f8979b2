"""Names of models in Postgres."""

from typing import Any, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, NotFound, UnknownReference
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.routing.route import MAX_ALIASES, ModelAlias

_QUERIES: Final = queries("meter.routing")
_LIST_ALIASES: Final = _QUERIES["list_aliases"]
_LOCK_ALIASES: Final = _QUERIES["lock_aliases"]
_PUT_ALIAS: Final = _QUERIES["put_alias"]
_DELETE_ALIAS: Final = _QUERIES["delete_alias"]
_FIND_OFFERED: Final = _QUERIES["find_offered"]


class AliasStore:
    """Stores names of models. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[ModelAlias]:
        """Return all names, in order."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_ALIASES)
        return [from_row(ModelAlias, row) for row in rows]

    async def put(self, actor: Actor, alias: ModelAlias) -> bool:
        """Create a name or change it. Returns whether it is new.

        Raises UnknownReference where nobody offers the model, Conflict where a model has the
        name already and the alias is no redirect, or where there are MAX_ALIASES.
        """
        name, model_id = alias.name, alias.model_id
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_ALIASES)
            aliases = [from_row(ModelAlias, row) for row in await connection.fetch(_LIST_ALIASES)]
            rows = await connection.fetch(_FIND_OFFERED, [name, model_id])
            offered = {row["id"] for row in rows}
            if model_id not in offered:
                is_alias = any(one.name == model_id for one in aliases)
                why = (
                    f"'{model_id}' is an alias itself; name the model that it means"
                    if is_alias
                    else f"nobody offers a model '{model_id}'; see `tollkeeper models`"
                )
                raise UnknownReference(why)
            if name in offered and not alias.is_redirect:
                raise Conflict(
                    f"'{name}' is a model that is offered, and an alias would hide it; choose"
                    " another name, or make it a redirect, which applies once the model is retired"
                )
            before = next((one for one in aliases if one.name == name), None)
            if before is None and len(aliases) >= MAX_ALIASES:
                raise Conflict(f"there are {MAX_ALIASES} aliases; remove one first")
            await connection.execute(_PUT_ALIAS, name, model_id, alias.is_redirect)
            changes = changes_between({} if before is None else _audited(before), _audited(alias))
            if changes:
                await write_audit(connection, actor, _event("alias.set", name, changes))
        return before is None

    async def remove(self, actor: Actor, name: str) -> None:
        """Remove a name. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchval(_DELETE_ALIAS, name) is None:
                raise NotFound(f"there is no alias '{name}'")
            await write_audit(connection, actor, _event("alias.removed", name, {}))


def _event(action: str, name: str, detail: dict[str, Any]) -> AuditEvent:
    return AuditEvent(action, f"alias:{name}", None, detail)


def _audited(alias: ModelAlias) -> dict[str, Any]:
    return {"model_id": alias.model_id, "is_redirect": alias.is_redirect}
