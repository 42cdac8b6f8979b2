"""Reads what Envoy's clusters are made from."""

from meter.providers.provider import DialectName
from meter.providers.provider_store import ProviderStore
from meter.routing.route_store import RouteStore
from meter.xds.clusters import UpstreamProvider
from meter.xds.publisher import Upstreams


class UpstreamStore:
    """Reads the enabled providers, and the routes among them, from Postgres."""

    def __init__(self, providers: ProviderStore, routes: RouteStore) -> None:
        self._providers = providers
        self._routes = routes

    async def load(self) -> Upstreams:
        """Return them as they are now. Raises StoreUnavailable."""
        return Upstreams(
            tuple(
                UpstreamProvider(
                    one.id,
                    one.base_url,
                    one.dialect.unbilled_statuses,
                    one.dialect.name is DialectName.ANTHROPIC,
                )
                for one in await self._providers.list_all()
                if one.is_enabled
            ),
            tuple(await self._routes.list_all()),
        )
