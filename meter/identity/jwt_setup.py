"""Which JWTs are believed, put together for authz and the meter alike.

What one of them lets in, the other does too.
"""

from meter.clock import SystemClock
from meter.identity.issuer_store import PostgresIssuers
from meter.identity.jwt_settings import JwtSettings
from meter.identity.signing_key_store import PublishedKeys
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.verifying import JwtVerifier, OwnIssuer
from meter.network import read_networks
from meter.postgres.pool import PostgresPool


def issuer_documents(settings: JwtSettings) -> IssuerDocuments:
    """What fetches the keys of issuers. Raises InvalidRequest for unusable settings."""
    return IssuerDocuments(read_networks(settings.issuer_networks), settings.issuer_ca_file)


def own_issuer(settings: JwtSettings) -> OwnIssuer:
    """We ourselves."""
    return OwnIssuer(settings.issuer_url, settings.jwt_audience)


def jwt_verifier(pool: PostgresPool, settings: JwtSettings) -> JwtVerifier:
    """Believes passes and the JWTs of issuers; close it. Raises InvalidRequest for settings."""
    clock = SystemClock()
    return JwtVerifier(
        PostgresIssuers(pool),
        issuer_documents(settings),
        clock,
        own_issuer(settings),
        PublishedKeys(pool, clock),
    )
