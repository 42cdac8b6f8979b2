"""The provider's key is shown to a verified provider only."""

import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.e2e.envoy.certificates import Authority
from tests.e2e.envoy.envoy_harness import PROVIDER_KEY, ProviderTls, running_gateway

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
