"""The provider's key is shown to a verified provider only."""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.envoy_harness import PROVIDER_KEY, ProviderTls, running_gateway


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of a test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: Authority | None
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
    )


def authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    basic = x509.BasicConstraints(ca=True, path_length=None)
    builder = _certificate(name, key, None).add_extension(basic, critical=True)
    return Authority(key, builder.sign(key, hashes.SHA256()))


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def server_context(folder: Path, issuer: Authority, san: x509.GeneralName) -> ssl.SSLContext:
    """A server that presents a certificate for `san` from `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([san])
    builder = _certificate("provider", key, issuer).add_extension(names, critical=False)
    encoded = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = folder / "server.pem"
    chain.write_bytes(pem(builder.sign(issuer.key, hashes.SHA256())) + encoded)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


LOCALHOST = x509.DNSName("localhost")
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def presented(
    folder: Path, name: str, san: x509.GeneralName, *, is_trusted: bool = True
) -> ProviderTls:
    issuer = authority("test roots")
    believed = issuer if is_trusted else authority("other roots")
    roots = folder / "roots.pem"
    roots.write_bytes(pem(believed.certificate))
    return ProviderTls(server_context(folder, issuer, san), name, roots)


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
