"""Passes: signed here, accepted here, and as narrow as they say."""

import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meter.jwts.passes import UNKNOWN_KEY_INTERVAL_S
from meter.jwts.signing import (
    NewSigningKey,
    SigningAlgorithm,
    new_signing_key,
    pass_claims,
    sign_pass,
    thumbprint,
)
from meter.jwts.verified import VerifiedPass
from meter.scopes import Scope
from tests.jwts import NOW, VerifierSetup, claims, signer

KEYS: dict[SigningAlgorithm, NewSigningKey] = {
    "EdDSA": new_signing_key("EdDSA"),
    "RS256": new_signing_key("RS256"),
}
PASS_ID = "ps_0123456789abcdefghij"


@pytest.fixture
def setup() -> VerifierSetup:
    setup = VerifierSetup(FOREIGN)
    setup.own_keys.jwks = {key.kid: key.public_jwk for key in KEYS.values()}
    return setup


def our_claims(setup: VerifierSetup, **members: Any) -> dict[str, Any]:
    scopes = [Scope.INFERENCE, Scope.MODELS_READ]
    usual = pass_claims(
        setup.own.url,
        setup.own.audience,
        "usr_1",
        "key_1",
        PASS_ID,
        scopes,
        NOW,
        NOW + timedelta(minutes=15),
    )
    return {name: value for name, value in {**usual, **members}.items() if value is not None}


def issue(setup: VerifierSetup, algorithm: SigningAlgorithm = "EdDSA", **members: Any) -> str:
    key = KEYS[algorithm]
    return sign_pass(key.private, key.kid, algorithm, our_claims(setup, **members)).reveal()


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
async def test_a_pass_is_believed(setup: VerifierSetup, algorithm: SigningAlgorithm) -> None:
    verified = await setup.verifier.verify(issue(setup, algorithm))
    assert verified == VerifiedPass(PASS_ID, NOW + timedelta(minutes=15, seconds=30))
    header = jwt.get_unverified_header(issue(setup, algorithm))
    assert header == {"alg": algorithm, "kid": KEYS[algorithm].kid, "typ": "at+jwt"}


def test_the_claims_are_those_of_rfc_9068(setup: VerifierSetup) -> None:
    assert our_claims(setup) == {
        "iss": "https://tollkeeper.example.com",
        "aud": "tollkeeper-api",
        "sub": "usr_1",
        "client_id": "key_1",
        "jti": PASS_ID,
        "iat": int(NOW.timestamp()),
        "nbf": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 900,
        "scope": "inference models:read",
    }


@pytest.mark.parametrize(
    "members",
    [
        {"iss": "https://tollkeeper.example.com/"},
        {"iss": None},
        {"aud": "tollkeeper"},
        {"aud": None},
        {"sub": None},
        {"jti": None},
        {"jti": "short"},
        {"jti": "x" * 65},
        {"jti": "../../../../etc/passwd"},
        {"jti": 10**20},
        {"exp": int(NOW.timestamp()) - 30},
        {"nbf": int(NOW.timestamp()) + 31},
        {"iat": None},
        {"exp": None},
    ],
    ids=str,
)
async def test_a_pass_that_is_not_in_order(setup: VerifierSetup, members: dict[str, Any]) -> None:
    assert await setup.refusal(issue(setup, **members))


async def test_a_pass_of_another_kind(setup: VerifierSetup) -> None:
    key = KEYS["EdDSA"]
    for headers in ({"typ": "JWT"}, {"typ": None}, {"kid": "unknown"}, {"kid": KEYS["RS256"].kid}):
        usual = {"kid": key.kid, "typ": "at+jwt", **headers}
        text = jwt.encode(our_claims(setup), key.private.reveal(), "EdDSA", usual)
        assert await setup.refusal(text)


async def test_a_pass_signed_by_somebody_elses_key_of_the_same_id(setup: VerifierSetup) -> None:
    thief = new_signing_key("EdDSA")
    for kid in KEYS["EdDSA"].kid, thief.kid:
        assert await setup.refusal(
            sign_pass(thief.private, kid, "EdDSA", our_claims(setup)).reveal()
        )
    assert await setup.refusal(signer("EdDSA", KEYS["EdDSA"].kid).sign(claims(iss=setup.own.url)))


async def test_a_key_that_is_withdrawn_ends_its_passes_within_a_second(
    setup: VerifierSetup,
) -> None:
    text = issue(setup)
    assert await setup.verifier.verify(text) is not None
    del setup.own_keys.jwks[KEYS["EdDSA"].kid]
    setup.clock.advance(0.91)
    assert await setup.refusal(text) == "no published key of ours has its kid"


async def test_a_new_key_counts_at_once_and_unknown_ones_are_asked_for_seldom(
    setup: VerifierSetup,
) -> None:
    assert await setup.verifier.verify(issue(setup)) is not None
    new = new_signing_key("EdDSA")
    setup.own_keys.jwks[new.kid] = new.public_jwk
    text = sign_pass(new.private, new.kid, "EdDSA", our_claims(setup)).reveal()
    assert await setup.verifier.verify(text) is not None
    loads = setup.own_keys.loads
    stranger = new_signing_key("EdDSA")
    for number in range(200):
        forged = sign_pass(stranger.private, f"kid-{number}", "EdDSA", our_claims(setup))
        assert await setup.verifier.verify(forged.reveal()) is None
    assert setup.own_keys.loads == loads
    setup.clock.advance(UNKNOWN_KEY_INTERVAL_S)
    await setup.verifier.verify(forged.reveal())
    assert setup.own_keys.loads <= loads + 2


def test_the_kid_is_the_thumbprint_of_rfc_7638() -> None:
    published = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tS"
        "oc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YG"
        "jQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"
        "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(published) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    for key in KEYS.values():
        assert thumbprint(key.public_jwk) == key.kid


def test_what_is_secret_does_not_show(setup: VerifierSetup) -> None:
    for key in KEYS.values():
        assert "PRIVATE" not in repr(key) and "d" not in key.public_jwk
        assert "PRIVATE" not in json.dumps(key.public_jwk)
    key = KEYS["EdDSA"]
    assert repr(sign_pass(key.private, key.kid, "EdDSA", our_claims(setup))) == "SecretText('***')"


FOREIGN = signer()
FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\x00é{"


@pytest.fixture(scope="module")
def good_ones() -> list[str]:
    setup = VerifierSetup()
    return [issue(setup, "EdDSA"), issue(setup, "RS256"), FOREIGN.sign(claims())]


@given(kind=st.integers(0, 2), at=st.floats(0, 1), char=st.sampled_from(CHARS))
@FUZZ
async def test_no_changed_character_is_believed(
    setup: VerifierSetup, good_ones: list[str], kind: int, at: float, char: str
) -> None:
    good = good_ones[kind]
    assert await setup.verifier.verify(good) is not None
    where = min(int(at * len(good)), len(good) - 1)
    for changed in (
        good[:where] + char + good[where + 1 :],
        good[:where] + char + good[where:],
        good[:where] + good[where + 1 :],
        good[:where],
    ):
        if changed != good:
            assert await setup.verifier.verify(changed) is None


@given(st.text() | st.binary().map(lambda octets: octets.decode("latin-1")))
@FUZZ
async def test_no_text_breaks_it(setup: VerifierSetup, text: str) -> None:
    for strange in (text, f"{text}.{text}.{text}", f"eyJ9.{text}.AAAA"):
        assert await setup.verifier.verify(strange) is None
