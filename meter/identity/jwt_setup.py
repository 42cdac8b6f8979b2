"""Creates the verifier of JWTs from settings.

Authz and the meter both use it, so that they accept the same JWTs.
"""

from meter.clock import SystemClock
from meter.identity.issuer_store import PostgresIssuers
from meter.identity.jwt_settings import JwtSettings
from meter.identity.signing_key_store import PublishedKeys
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.passes import OwnIssuer
from meter.jwts.verifying import JwtVerifier
from meter.network import read_networks
from meter.postgres.pool import PostgresPool


def issuer_documents(settings: JwtSettings) -> IssuerDocuments:
    """Return the client that fetches the keys of issuers.

    Raises InvalidRequest for unusable settings.
    """
    return IssuerDocuments(read_networks(settings.issuer_networks), settings.issuer_ca_file)


def own_issuer(settings: JwtSettings) -> OwnIssuer:
    """Return the issuer that signs passes: Tollkeeper itself."""
    return OwnIssuer(settings.issuer_url, settings.jwt_audience)


def jwt_verifier(pool: PostgresPool, settings: JwtSettings) -> JwtVerifier:
    """Return a verifier of passes and of JWTs of issuers; the caller closes it.

    Raises InvalidRequest for unusable settings.
    """
    clock = SystemClock()
    return JwtVerifier(
        PostgresIssuers(pool),
        issuer_documents(settings),
        clock,
        own_issuer(settings),
        PublishedKeys(pool, clock),
    )
