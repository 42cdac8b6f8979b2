"""A certificate authority made for a test, and a server certificate for this machine."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """The certificates to trust, and those to serve with."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    @property
    def server_context(self) -> ssl.SSLContext:
        """For a server on 127.0.0.1 and localhost."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def make_authority(folder: Path) -> Authority:
    """Make both, good for a day."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Test authority")
    ca = _start(issuer, issuer, ca_key.public_key(), is_ca=True).sign(ca_key, SHA256())
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    server = (
        _start(_name("Test server"), issuer, key.public_key(), is_ca=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, SHA256())
    )
    made = Authority(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    made.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
    made.certificate_file.write_bytes(server.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made.key_file.write_bytes(private)
    return made


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _start(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, is_ca: bool
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
