"""Loads the routing table from Postgres."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.pricing.prices import Model, Offer
from meter.providers.provider import DialectName
from meter.routing.route import ModelAlias
from meter.routing.route_store import to_route
from meter.routing.table import RoutingTable

_QUERIES: Final = queries("meter.routing")
_LOAD_ENABLED_PROVIDERS: Final = _QUERIES["load_enabled_providers"]
_LIST_ROUTES: Final = _QUERIES["list_routes"]
_LIST_ALIASES: Final = _QUERIES["list_aliases"]


@dataclass(frozen=True, slots=True)
class Routing:
    """The table in force, and the dialects of the enabled providers by their ids."""

    table: RoutingTable
    dialects: Mapping[str, DialectName]


class RoutingStore:
    """Loads what decides about providers. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load(self, listed: Mapping[str, Model], offers: Iterable[Offer]) -> Routing:
        """Return the routing in force, of the models and offers of the catalogue."""
        async with acquire(self._pool) as connection:
            enabled = await connection.fetch(_LOAD_ENABLED_PROVIDERS)
            routes = await connection.fetch(_LIST_ROUTES)
            aliases = await connection.fetch(_LIST_ALIASES)
        dialects = {row["id"]: DialectName(row["dialect"]) for row in enabled}
        table = RoutingTable(
            listed,
            offers,
            [to_route(row) for row in routes],
            [from_row(ModelAlias, row) for row in aliases],
            frozenset(dialects),
        )
        return Routing(table, dialects)
