"""JWTs of a real OIDC provider: found, accepted, rotated, out of reach, and up to no good."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from meter.clock import ManualClock
from meter.errors import IssuerUnavailable
from meter.jwts import key_sets
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.issuers import StoredIssuer
from meter.jwts.key_sets import FETCH_INTERVAL_S
from meter.jwts.terms import Family
from meter.jwts.verified import VerifiedIdentity
from meter.jwts.verifying import JwtVerifier
from tests.jwts import AUDIENCE, FakeIssuers, issuer
from tests.tls import Authority, make_authority

if TYPE_CHECKING:
    from tests.oidc_provider import Provider

MAX_KEY_AGE_S = 3_600
LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("provider"))


@pytest.fixture
def provider(authority: Authority) -> Iterator["Provider"]:
    # Imported by the worker that uses it: Flask and Authlib take half a second of CPU.
    from tests.oidc_provider import provider_running

    with provider_running(authority) as running:
        yield running


class VerifierSetup:
    """A verifier that trusts the provider, with a clock to turn."""

    def __init__(self, provider: "Provider", documents: IssuerDocuments) -> None:
        self.provider = provider
        self.clock = ManualClock(datetime.now(UTC))
        trusted = issuer(Family.RS, url=provider.url, max_key_age_s=MAX_KEY_AGE_S)
        self.store = FakeIssuers(StoredIssuer(trusted, None, None))
        self.documents = documents
        self.restart()

    def restart(self) -> None:
        """Forget everything but what the store keeps."""
        self.verifier = JwtVerifier(self.store, self.documents, self.clock)

    def sign(self, **members: Any) -> str:
        """An access token of the provider, good for ten hours."""
        now_s = int(self.clock.now().timestamp())
        usual = {"iss": self.provider.url, "aud": AUDIENCE, "sub": "ada", "iat": now_s}
        return self.provider.sign({**usual, "exp": now_s + 36_000, **members})


@pytest.fixture
def setup(provider: "Provider", authority: Authority) -> VerifierSetup:
    return VerifierSetup(provider, IssuerDocuments(LOOPBACK, authority.ca_file))


async def test_its_jwts_are_accepted(setup: VerifierSetup) -> None:
    for _ in range(3):
        verified = await setup.verifier.verify(setup.sign())
        assert isinstance(verified, VerifiedIdentity) and verified.subject == "ada"
    assert setup.provider.asked == ["/.well-known/openid-configuration", "/jwks"]


async def test_its_id_token_is_not_an_access_token(setup: VerifierSetup) -> None:
    id_token = setup.provider.sign_in("ada", AUDIENCE)
    setup.store.change(issuer(Family.RS, url=setup.provider.url, may_omit_type=True))
    verification = await setup.verifier.verify_with_reason(id_token)
    assert verification.reason == "it is an ID token, not an access token"
    url = setup.provider.url
    setup.store.change(issuer(Family.RS, url=url, may_omit_type=True, may_be_id_token=True))
    setup.clock.advance(1)
    verified = await setup.verifier.verify(id_token)
    assert isinstance(verified, VerifiedIdentity) and verified.subject == "ada"


async def test_it_rotates_its_key(setup: VerifierSetup) -> None:
    before = setup.sign()
    assert await setup.verifier.verify(before) is not None
    setup.provider.rotate()
    after = setup.sign()
    setup.clock.advance(FETCH_INTERVAL_S)
    assert await setup.verifier.verify(after) is not None
    assert await setup.verifier.verify(before) is None
    assert len(setup.provider.asked) == 4


async def test_it_goes_down_and_comes_back(setup: VerifierSetup) -> None:
    text = setup.sign()
    assert await setup.verifier.verify(text) is not None
    setup.provider.stop()
    setup.clock.advance(MAX_KEY_AGE_S)
    for _ in ("held in memory", "kept by the store"):
        assert await setup.verifier.verify(text) is not None
        setup.restart()
    setup.clock.advance(1)
    with pytest.raises(IssuerUnavailable):
        await setup.verifier.verify(text)
    setup.provider.start()
    setup.clock.advance(FETCH_INTERVAL_S)
    assert await setup.verifier.verify(text) is not None


async def test_it_redirects_to_a_private_address(setup: VerifierSetup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        setup.provider.redirect_to = f"https://127.0.0.1:{listener.getsockname()[1]}/jwks"
        with pytest.raises(IssuerUnavailable, match="302"):
            await setup.verifier.verify(setup.sign())
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_private_address_that_nobody_allowed(
    provider: "Provider", authority: Authority
) -> None:
    setup = VerifierSetup(provider, IssuerDocuments((), authority.ca_file))
    with pytest.raises(IssuerUnavailable, match="not public"):
        await setup.verifier.verify(setup.sign())
    assert provider.asked == []


async def test_it_is_too_slow_to_wait_for(
    setup: VerifierSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client hears within a moment, though the fetch may still go on."""
    monkeypatch.setattr(key_sets, "FETCH_WAIT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"https://127.0.0.1:{silent.getsockname()[1]}/jwks"
        setup.store.change(issuer(Family.RS, url=setup.provider.url, jwks_url=where))
        with pytest.raises(IssuerUnavailable):
            await setup.verifier.verify(setup.sign())
        await setup.verifier.close()
