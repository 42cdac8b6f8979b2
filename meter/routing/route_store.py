"""Routes in Postgres."""

from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, InvalidRequest, NotFound, UnknownReference
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.routing.route import MAX_ROUTES, Route, RouteProvider

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.routing")
_LIST_ROUTES: Final = _QUERIES["list_routes"]
_LOCK_ROUTES: Final = _QUERIES["lock_routes"]
_PUT_ROUTE: Final = _QUERIES["put_route"]
_PUT_ROUTE_PROVIDERS: Final = _QUERIES["put_route_providers"]
_DELETE_ROUTE: Final = _QUERIES["delete_route"]
_FIND_ROUTE_TARGETS: Final = _QUERIES["find_route_targets"]


class RouteStore:
    """Stores routes. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[Route]:
        """Return all routes, in the order in which their patterns are tried."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_ROUTES)
        return [to_route(row) for row in rows]

    async def get(self, route_id: str) -> Route:
        """Return one route. Raises NotFound."""
        for route in await self.list_all():
            if route.id == route_id:
                return route
        raise _no_route(route_id)

    async def put(self, actor: Actor, route: Route) -> bool:
        """Create a route or change it. Returns whether it is new.

        Raises UnknownReference for a provider that does not exist, or that offers no model which
        the pattern matches, InvalidRequest for one that is named twice, Conflict where another
        route has the pattern or there are MAX_ROUTES already.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_ROUTES)
            names = [one.provider for one in route.providers]
            targets = await connection.fetch(_FIND_ROUTE_TARGETS, names)
            _require_offer(route, targets)
            routes = [to_route(row) for row in await connection.fetch(_LIST_ROUTES)]
            before = next((one for one in routes if one.id == route.id), None)
            if before is None and len(routes) >= MAX_ROUTES:
                raise Conflict(f"there are {MAX_ROUTES} routes; remove one first")
            same = next((one for one in routes if one.pattern == route.pattern), None)
            if same is not None and same.id != route.id:
                raise Conflict(
                    f"the route '{same.id}' has the pattern '{route.pattern}' already, and only one"
                    " of two equal patterns could apply; change that route or remove it first"
                )
            await connection.execute(_PUT_ROUTE, route.id, route.pattern, route.position)
            await connection.execute(
                _PUT_ROUTE_PROVIDERS,
                route.id,
                names,
                [one.priority for one in route.providers],
                [one.weight for one in route.providers],
            )
            changes = changes_between({} if before is None else _audited(before), _audited(route))
            if changes:
                await write_audit(connection, actor, _event("route.set", route.id, changes))
        return before is None

    async def remove(self, actor: Actor, route_id: str) -> None:
        """Remove a route; its models are served as without one. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchval(_DELETE_ROUTE, route_id) is None:
                raise _no_route(route_id)
            await write_audit(connection, actor, _event("route.removed", route_id, {}))


def to_route(row: "Record") -> Route:
    """Read a row of `list_routes.sql`."""
    in_turn = zip(row["providers"], row["priorities"], row["weights"], strict=True)
    providers = tuple(RouteProvider(*one) for one in in_turn)
    return Route(row["id"], row["pattern"], providers, row["position"])


def _require_offer(route: Route, targets: "list[Record]") -> None:
    """Raise where a route names no provider of ours, or one that could serve none of its models."""
    known = {row["id"]: row["model_ids"] or () for row in targets}
    names = [one.provider for one in route.providers]
    for provider in names:
        if provider not in known:
            raise UnknownReference(
                f"there is no provider '{provider}'; see `tollkeeper providers`, and create it"
                " first"
            )
        if names.count(provider) > 1:
            raise InvalidRequest(
                f"the provider '{provider}' is named twice; its weight says how often it serves"
            )
        offered = known[provider]
        is_met = (
            route.pattern in offered
            if route.is_exact
            else any(fnmatchcase(one, route.pattern) for one in offered)
        )
        if not is_met:
            raise UnknownReference(
                f"the provider '{provider}' offers no model that '{route.pattern}' matches, so it"
                " could never serve this route; see `tollkeeper models`, or give its models prices"
            )


def _event(action: str, route_id: str, detail: dict[str, Any]) -> AuditEvent:
    return AuditEvent(action, f"route:{route_id}", None, detail)


def _no_route(route_id: str) -> NotFound:
    return NotFound(f"there is no route '{route_id}'")


def _audited(route: Route) -> dict[str, Any]:
    return {
        "pattern": route.pattern,
        "position": route.position,
        "providers": [asdict(one) for one in route.providers],
    }
