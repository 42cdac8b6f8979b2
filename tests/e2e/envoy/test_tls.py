"""A provider's key is shown to a verified provider only."""

import ipaddress
import ssl
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from tests.e2e.envoy.certificates import Authority
from tests.e2e.envoy.envoy_harness import PROVIDER_KEY, ProviderTls, running_gateway
from tests.e2e.envoy.providers import (
    Published,
    allow_elsewhere,
    decide_elsewhere,
    in_turn,
    key_of,
    stub,
)
from tests.patience import until

LOCALHOST = x509.DNSName("localhost")
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def presented(
    folder: Path, name: str, san: x509.GeneralName, *, is_trusted: bool = True
) -> ProviderTls:
    issuer = Authority.named("test roots")
    trusted = issuer if is_trusted else Authority.named("other roots")
    roots = trusted.write_roots(folder / "roots.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issuer.issue(folder / "server.pem", [san], "provider"))
    return ProviderTls(context, name, roots)


@pytest.mark.parametrize(("name", "san"), [("localhost", LOCALHOST), ("127.0.0.1", LOOPBACK)])
async def test_a_verified_provider_is_asked(
    tmp_path: Path, name: str, san: x509.GeneralName
) -> None:
    async with running_gateway(presented(tmp_path, name, san)) as gateway:
        gateway.reset()
        status, _, _ = await gateway.post()
        (received,) = gateway.provider.requests
        assert status == 200
        assert received.header("authorization") == f"Bearer {PROVIDER_KEY}"
        assert (received.header("host") or "").startswith(name)


@pytest.mark.parametrize(
    ("san", "is_trusted"), [(LOCALHOST, False), (x509.DNSName("evil.example"), True)]
)
async def test_anyone_else_is_not(tmp_path: Path, san: x509.GeneralName, is_trusted: bool) -> None:
    tls = presented(tmp_path, "localhost", san, is_trusted=is_trusted)
    async with running_gateway(tls) as gateway:
        hold_id = gateway.reset()
        status, _, body = await gateway.post()
        assert (status, b"provider_unavailable" in body) == (503, True)
        assert not gateway.provider.requests
        entry = await gateway.entries.of(hold_id)
        assert entry.common_properties.response_flags.upstream_connection_failure


@pytest.mark.parametrize("is_verified", [True, False])
async def test_a_further_provider_is_verified_by_its_own_name(
    tmp_path: Path, is_verified: bool
) -> None:
    san = LOCALHOST if is_verified else x509.DNSName("other.example")
    tls = presented(tmp_path, "localhost", san)
    async with running_gateway(tls) as gateway, stub("one") as one, stub("two", tls.server) as two:
        gateway.reset()
        published = Published.to(gateway.folder / "clusters" / "clusters.json")
        base_url = f"https://localhost:{two.port}/v1"
        secure = replace(two.upstream, base_url=base_url)
        # Over TLS the first, in the clear the second: each endpoint has a socket of its own.
        await published.change([one.upstream, secure], [in_turn(two, one)])
        live = partial(gateway.counter, "cluster.route-r.membership_total")
        await until(live, "the route is live")
        decide_elsewhere(gateway, allow_elsewhere("two", "route-r", ["one"]))
        status, _, _ = await gateway.post()
        assert status == 200
        assert two.keys_seen == ({f"Bearer {key_of('two')}"} if is_verified else set())
        assert one.keys_seen == (set() if is_verified else {f"Bearer {key_of('one')}"})
