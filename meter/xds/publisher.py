"""Keeps Envoy's clusters like the providers and routes in Postgres, and notices where they are not.

Envoys on this machine read a file, which is also what they start with while the meter is away.
Others ask (`ClusterPublisher.current`). Several meters may keep one file: all write the same.
"""

import asyncio
import os
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from meter.errors import EnvoyUnavailable, InvalidRequest, StoreUnavailable
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.process.periodic import periodic
from meter.routing.route import Route
from meter.xds.clusters import (
    ClusterSet,
    Document,
    UpstreamProvider,
    cluster_set,
    render_clusters,
)

REFRESH_EVERY_S: Final = 0.5
RETRY_S: Final = 0.5
# How often a running Envoy is asked which clusters it has.
LOOK_EVERY_S: Final = 5.0
# An Envoy that is sent one version so often in a row does not take it.
DELIVERIES_OF_A_REFUSAL: Final = 4
MOST_NODES: Final = 64
MAX_NODE_CHARS: Final = 100
MAX_REASON_CHARS: Final = 500
_COUNTERS: Final = (
    r"^cluster_manager\.cds\.update_(rejected|success)$"
    r"|^cluster\.(provider|route)-[a-z0-9_-]+\.membership_total$"
)
_MEMBERSHIP: Final = ".membership_total"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The enabled providers and the routes, as Postgres has them."""

    providers: tuple[UpstreamProvider, ...] = ()
    routes: tuple[Route, ...] = ()


LoadUpstreams = Callable[[], Awaitable[Upstreams]]


@dataclass(slots=True)
class _Node:
    """An Envoy that asks: the version that it was sent last, and how often in a row."""

    sent: str = ""
    deliveries: int = 0
    refusal: str | None = None


class ClusterPublisher:
    """Renders the clusters when providers or routes change, and gives them to Envoys.

    `file` is where Envoys on this machine read them, `envoy` the administration of one of these.
    """

    def __init__(
        self,
        load: LoadUpstreams,
        file: Path | None,
        envoy: EnvoyAdmin | None,
        registry: CollectorRegistry,
    ) -> None:
        self._load = load
        self._file = file
        self._envoy = envoy
        self._loaded: Upstreams | None = None
        self._current: ClusterSet | None = None
        self._written: str | None = None
        self._unusable: Mapping[str, str] = {}
        self._nodes: OrderedDict[str, _Node] = OrderedDict()
        self._counts: tuple[int, int] | None = None
        self._is_rejected = False
        self._missing: tuple[str, ...] = ()
        self._refused = Gauge(
            "tollkeeper_envoy_clusters_refused",
            "Clusters of providers and routes that an Envoy does not have as they should be",
            registry=registry,
        )

    @property
    def current(self) -> ClusterSet | None:
        """Return the present clusters; None before Postgres was read once."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Return in words what Envoys do not have as it should be; None where all is well."""
        found = [f"{provider}: {reason}" for provider, reason in self._unusable.items()]
        if self._missing:
            found.append(f"Envoy has not taken {', '.join(self._missing)}")
        if self._is_rejected:
            found.append("Envoy refused the last change; its log says why")
        found += [
            f"Envoy {name} refuses the clusters: {node.refusal}"
            for name, node in self._nodes.items()
            if node.refusal is not None
        ]
        return "; ".join(found)[:MAX_REASON_CHARS] or None

    async def run(self) -> None:
        """Refresh until cancelled, through outages of Postgres."""
        await asyncio.gather(
            periodic(
                "cluster_refresh", self.refresh, REFRESH_EVERY_S, RETRY_S, (StoreUnavailable,)
            ),
            periodic("envoy_look", self.look, LOOK_EVERY_S, LOOK_EVERY_S, (EnvoyUnavailable,)),
        )

    async def refresh(self) -> None:
        """Read providers and routes, and publish what has changed. Raises StoreUnavailable."""
        loaded = await self._load()
        clusters = self._current
        if clusters is None or loaded != self._loaded:
            clusters = self._render(loaded)
        if self._file is not None:
            await asyncio.to_thread(self._keep, self._file, clusters)
        self._count()

    def _render(self, loaded: Upstreams) -> ClusterSet:
        found = _rendered(loaded)
        clusters, unusable = cluster_set(found.clusters), found.unusable
        if unusable and unusable != self._unusable:
            _log.error("providers_without_cluster", reasons=dict(unusable))
        self._unusable = unusable
        if self._current is None or clusters.version != self._current.version:
            _log.info("clusters_changed", version=clusters.version, clusters=len(clusters.names))
        self._loaded, self._current = loaded, clusters
        return clusters

    async def look(self) -> None:
        """Compare the clusters of the Envoy on this machine. Raises EnvoyUnavailable."""
        if self._envoy is None or self._current is None:
            return
        expected = self._current
        counters = await self._envoy.counters(_COUNTERS)
        has = {
            name.removeprefix("cluster.").removesuffix(_MEMBERSHIP)
            for name in counters
            if name.endswith(_MEMBERSHIP)
        }
        missing = tuple(sorted(set(expected.names) - has))
        rejected = counters.get("cluster_manager.cds.update_rejected", 0)
        taken = counters.get("cluster_manager.cds.update_success", 0)
        was_unwell = self._is_rejected or bool(self._missing)
        if self._counts is not None:
            # An Envoy that was started anew counts from the beginning.
            was_restarted = rejected < self._counts[0] or taken < self._counts[1]
            rejected_before, taken_before = (0, 0) if was_restarted else self._counts
            if rejected > rejected_before:
                self._is_rejected = True
            elif taken > taken_before:
                self._is_rejected = False
        self._counts = (rejected, taken)
        self._missing = missing
        if (missing or self._is_rejected) and not was_unwell:
            _log.error(
                "envoy_refuses_clusters",
                version=expected.version,
                missing=list(missing),
                advice="look at the log of Envoy",
            )
        self._count()

    def asked_by(self, node: str, version: str, refusal: str | None) -> ClusterSet | None:
        """Return the clusters for an Envoy that asks; None where it has them.

        `node` is the id of the Envoy, `version` the one that it has, `refusal` what it says of the
        last one if it says anything. Raises StoreUnavailable before Postgres was read once.
        """
        if self._current is None:
            raise StoreUnavailable("providers and routes have not been read yet")
        name = node[:MAX_NODE_CHARS]
        asking = self._nodes.setdefault(name, _Node())
        self._nodes.move_to_end(name)
        if len(self._nodes) > MOST_NODES:
            self._nodes.popitem(last=False)
        if version == self._current.version:
            asking.sent, asking.deliveries, asking.refusal = version, 0, None
            self._count()
            return None
        is_again = asking.sent == self._current.version
        asking.deliveries = asking.deliveries + 1 if is_again else 1
        asking.sent = self._current.version
        if refusal is None and asking.deliveries >= DELIVERIES_OF_A_REFUSAL:
            refusal = "it keeps its version; its log says why"
        if refusal is not None and asking.refusal is None:
            _log.error(
                "envoy_refuses_clusters",
                node=name,
                version=asking.sent,
                reason=refusal[:MAX_REASON_CHARS],
            )
        if refusal is not None:
            asking.refusal = refusal[:MAX_REASON_CHARS]
        self._count()
        return self._current

    def _keep(self, file: Path, clusters: ClusterSet) -> None:
        # Written once for each change, not whenever the file differs: two meters of different
        # versions would otherwise overwrite one another without end.
        if self._written == clusters.version and file.exists():
            return
        try:
            if not file.exists() or file.read_bytes() != clusters.body:
                _replace(file, clusters.body)
        except OSError as error:
            raise StoreUnavailable(f"{file} cannot be written: {error.strerror}") from error
        self._written = clusters.version

    def _count(self) -> None:
        refusals = sum(node.refusal is not None for node in self._nodes.values())
        self._refused.set(
            len(self._unusable) + len(self._missing) + int(self._is_rejected) + refusals
        )


@dataclass(frozen=True, slots=True)
class _RenderedClusters:
    """Clusters, and the providers that have none, each with the reason."""

    clusters: list[Document]
    unusable: Mapping[str, str]


def _rendered(upstreams: Upstreams) -> _RenderedClusters:
    """Render what can be rendered: a provider that cannot be must not take the others along."""
    usable: list[UpstreamProvider] = []
    unusable: dict[str, str] = {}
    for provider in upstreams.providers:
        try:
            render_clusters([provider], [])
        except InvalidRequest as error:
            unusable[provider.id] = str(error)
        else:
            usable.append(provider)
    return _RenderedClusters(render_clusters(usable, upstreams.routes), unusable)


def _replace(file: Path, body: bytes) -> None:
    """Put the file in place as a whole, and on disk: an Envoy starts with it after a crash."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".clusters.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
