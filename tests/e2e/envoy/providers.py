"""Further providers for the real Envoy: stubs, their clusters, and decisions that name them."""

import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from aiohttp import web
from prometheus_client import CollectorRegistry

from authz.decision import Allow, Edit, Upstream
from authz.protos import ext_authz_pb2 as pb
from authz.transports import wire
from meter.routing.route import Route, RouteProvider, provider_cluster_name
from meter.sealing import SecretText
from meter.xds.clusters import UpstreamProvider
from meter.xds.publisher import ClusterPublisher, Upstreams
from tests.e2e.envoy.envoy_harness import Gateway, Provider, Reply, json_reply, start_http

UNBILLED = frozenset({429, 503})


def key_of(provider: str) -> str:
    """The planted credential of a provider."""
    return f"sk-planted-for-{provider}"


@dataclass(frozen=True, slots=True)
class Stub:
    """A running stub of a provider, and what Envoy is to know of it."""

    id: str
    port: int
    provider: Provider

    @property
    def upstream(self) -> UpstreamProvider:
        """The facts that Envoy is to know."""
        base_url = f"http://127.0.0.1:{self.port}/base/{self.id}"
        return UpstreamProvider(self.id, base_url, UNBILLED)

    @property
    def keys_seen(self) -> set[str | None]:
        """The credentials that reached it."""
        return {one.header("authorization") for one in self.provider.requests}


@contextlib.asynccontextmanager
async def stub(name: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stub]:
    """Run the stub of a provider inside the block."""
    provider = Provider(json_reply)
    runner, port = await start_http(provider, tls)
    try:
        yield Stub(name, port, provider)
    finally:
        await runner.cleanup()


@dataclass
class Published:
    """The providers and routes of an administrator, and the publisher that the meter has."""

    upstreams: Upstreams
    publisher: ClusterPublisher

    @classmethod
    def to(cls, file: Path | None) -> "Published":
        """Nothing yet, for Envoys that read this file."""

        async def load() -> Upstreams:
            return made.upstreams

        made = cls(Upstreams(), ClusterPublisher(load, file, None, CollectorRegistry()))
        return made

    async def change(
        self, providers: Sequence[UpstreamProvider], routes: Sequence[Route] = ()
    ) -> None:
        """Publish these instead of those before."""
        self.upstreams = Upstreams(tuple(providers), tuple(routes))
        await self.publisher.refresh()


def in_turn(*stubs: Stub, route: str = "r") -> Route:
    """A route that asks these one after another."""
    members = tuple(RouteProvider(one.id, at) for at, one in enumerate(stubs))
    return Route(route, "*", members)


def allow_elsewhere(
    provider: str,
    cluster: str | None = None,
    fallbacks: Sequence[str] = (),
    *,
    is_own_key: bool = False,
    hold_id: str | None = None,
    key: str | None = None,
    edits: tuple[Edit, ...] = (),
) -> pb.CheckResponse:
    """The decision of authz to ask a provider, and those after it."""
    return pb.CheckResponse.FromString(
        wire.from_decision(
            Allow(
                hold_id=UUID(hex=hold_id or secrets.token_hex(16)),
                account_id="acme",
                credential_id="abcdefghij234567",
                model_id="openai/gpt-4o",
                endpoint="chat_completions",
                provider_key=SecretText(key_of(provider) if key is None else key),
                edits=edits,
                upstream=Upstream(
                    cluster or provider_cluster_name(provider),
                    provider,
                    is_own_key,
                    tuple((one, SecretText(key_of(one))) for one in fallbacks),
                ),
            )
        )
    )


def decide_elsewhere(gateway: Gateway, response: pb.CheckResponse) -> str:
    """Have every check answered so; return the hold id."""

    async def always(_: pb.CheckRequest) -> pb.CheckResponse:
        return response

    gateway.decisions.answer = always
    return response.dynamic_metadata.fields["hold_id"].string_value


def answering(status: int, body: str = "{}") -> Reply:
    """A reply of this status, as a stub gives it."""

    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type="application/json")

    return reply
