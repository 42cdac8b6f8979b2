"""Key sets: fetched seldom, shared by the store, used as long as the terms say and no longer."""

import asyncio
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest

from meter.errors import IssuerUnavailable, StoreUnavailable
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.fresh import MAX_AGE_S, Fresh
from meter.jwts.issuers import StoredIssuer
from meter.jwts.key_sets import FETCH_INTERVAL_S, REFRESH_AFTER_S
from meter.jwts.keys import MAX_KEYS, read_keys
from meter.jwts.terms import DEFAULT_KEY_AGE_S, Family
from meter.jwts.verified_cache import VerifiedCache
from meter.jwts.verifying import JwtVerifier
from tests.jwts import (
    ISSUER,
    NOW,
    NOW_S,
    FakeDocuments,
    Signer,
    VerifierSetup,
    as_bytes,
    b64,
    claims,
    issuer,
    rsa_key,
    signer,
    stored,
)

OLD, NEW = signer(kid="old"), signer(kid="new")
FETCH = 2  # Documents that one fetch reads: discovery and keys.


def unfetched(*signers: Signer) -> VerifierSetup:
    """An issuer that was never asked, and publishes these keys."""
    setup = VerifierSetup()
    setup.store.issuers["main"] = StoredIssuer(issuer(), None, None)
    setup.documents.publish(ISSUER, *signers)
    return setup


def long_lived(by: Signer) -> str:
    return by.sign(claims(exp=NOW_S + 20 * 86_400))


async def settle() -> None:
    """Let fetches in the background come to their end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_first_jwt_fetches_the_keys_and_the_store_keeps_them() -> None:
    setup = unfetched(OLD)
    assert await setup.verifier.verify(OLD.sign(claims())) is not None
    kept = setup.store.issuers["main"]
    assert kept.keys_fetched_at == NOW and kept.keys is not None
    assert [jwk["kid"] for jwk in kept.keys["keys"]] == ["old"]


async def test_a_rotated_key_is_believed_and_a_removed_one_is_not() -> None:
    setup = unfetched(OLD)
    before, after = long_lived(OLD), long_lived(NEW)
    assert await setup.verifier.verify(before) is not None
    setup.documents.publish(ISSUER, NEW)
    setup.clock.advance(FETCH_INTERVAL_S)
    assert await setup.verifier.verify(after) is not None
    assert await setup.verifier.verify(before) is None


async def test_a_key_that_changes_under_its_name_is_fetched_once_it_may_be() -> None:
    setup = unfetched(OLD)
    assert await setup.verifier.verify(OLD.sign(claims())) is not None
    changed = signer(kid="old")
    setup.documents.publish(ISSUER, changed)
    text = long_lived(changed)
    setup.clock.advance(FETCH_INTERVAL_S / 2)
    assert await setup.verifier.verify(text) is None
    setup.clock.advance(FETCH_INTERVAL_S / 2)
    assert await setup.verifier.verify(text) is not None
    assert await setup.verifier.verify(OLD.sign(claims())) is None
    assert len(setup.documents.asked) == 2 * FETCH


async def test_forged_signatures_cause_one_fetch_in_thirty_seconds() -> None:
    setup = unfetched(OLD)
    assert await setup.verifier.verify(OLD.sign(claims())) is not None
    forger = signer(kid="old")
    for number in range(400):
        text = forger.sign(claims(sub=str(number % 100), exp=NOW_S + 600))
        assert await setup.verifier.verify(text) is None
        setup.clock.advance(0.25)
    asked = len(setup.documents.asked) // FETCH
    assert asked == 1 + int(400 * 0.25 / FETCH_INTERVAL_S)


async def test_a_forged_signature_does_not_fail_when_the_issuer_is_away() -> None:
    setup = unfetched(OLD)
    assert await setup.verifier.verify(long_lived(OLD)) is not None
    setup.documents.documents.clear()
    setup.clock.advance(FETCH_INTERVAL_S)
    assert await setup.verifier.verify(signer(kid="old").sign(claims())) is None
    assert await setup.verifier.verify(long_lived(OLD)) is not None


async def test_ten_thousand_unknown_kids_cause_one_fetch_in_thirty_seconds() -> None:
    setup = unfetched(OLD)
    _, payload, signature = OLD.sign(claims()).split(".")
    tracemalloc.start()
    for number in range(10_000):
        setup.clock.advance(0.004)
        text = f"{signer_header(f'random-{number}')}.{payload}.{signature}"
        assert await setup.verifier.verify(text) is None
    grown_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(setup.documents.asked) == 2 * FETCH
    assert grown_bytes < 1_000_000


def signer_header(kid: str) -> str:
    return b64(as_bytes({"alg": "ES256", "kid": kid, "typ": "JWT"}))


async def test_many_at_once_share_one_fetch() -> None:
    setup = unfetched(OLD)
    good = [OLD.sign(claims(sub=str(number))) for number in range(50)]
    verified = await asyncio.gather(*(setup.verifier.verify(text) for text in good))
    assert None not in verified and len(setup.documents.asked) == FETCH
    assert setup.store.loads <= 2


async def test_keys_are_refreshed_beside_the_answer() -> None:
    setup = unfetched(OLD)
    text = long_lived(OLD)
    assert await setup.verifier.verify(text) is not None
    setup.clock.advance(REFRESH_AFTER_S + 1)
    for _ in range(3):
        assert await setup.verifier.verify(text) is not None
        await settle()
    assert len(setup.documents.asked) == 2 * FETCH


async def test_an_outage_is_survived_up_to_the_stated_age_and_no_longer() -> None:
    setup = unfetched(OLD)
    text = long_lived(OLD)
    assert await setup.verifier.verify(text) is not None
    setup.documents.documents.clear()
    setup.clock.advance(DEFAULT_KEY_AGE_S)
    assert await setup.verifier.verify(text) is not None
    assert await setup.verifier.verify(long_lived(NEW)) is None
    setup.clock.advance(1)
    with pytest.raises(IssuerUnavailable):
        await setup.verifier.verify(text)


async def test_after_the_outage_all_is_well() -> None:
    setup = unfetched()
    setup.documents.documents.clear()
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await setup.verifier.verify(long_lived(OLD))
    assert len(setup.documents.asked) == 1
    setup.documents.publish(ISSUER, OLD)
    setup.clock.advance(FETCH_INTERVAL_S)
    assert await setup.verifier.verify(long_lived(OLD)) is not None


async def test_a_restart_in_an_outage_uses_what_the_store_kept() -> None:
    setup = VerifierSetup(OLD)
    setup.clock.advance(DEFAULT_KEY_AGE_S - 60)
    assert await setup.verifier.verify(long_lived(OLD)) is not None
    setup.clock.advance(61)
    with pytest.raises(IssuerUnavailable):
        await setup.verifier.verify(long_lived(OLD))


async def test_one_process_uses_what_another_fetched() -> None:
    setup = unfetched(OLD)
    assert await setup.verifier.verify(long_lived(OLD)) is not None
    other = JwtVerifier(setup.store, setup.documents, setup.clock)
    assert await other.verify(long_lived(OLD)) is not None
    assert len(setup.documents.asked) == FETCH
    setup.clock.advance(60)
    setup.store.issuers["main"] = stored(issuer(), [NEW.jwk], setup.clock.now())
    assert await other.verify(long_lived(NEW)) is not None
    assert len(setup.documents.asked) == FETCH


async def test_a_set_by_a_clock_ahead_of_ours_does_not_stay_the_youngest() -> None:
    setup = VerifierSetup(OLD)
    setup.documents.publish(ISSUER, NEW)
    ahead = NOW + timedelta(hours=1)
    setup.store.issuers["main"] = stored(issuer(), [OLD.jwk], ahead)
    for _ in range(3):
        assert await setup.verifier.verify(NEW.sign(claims())) is not None
        setup.store.issuers["main"] = stored(issuer(), [OLD.jwk], ahead)
        setup.clock.advance(1)
    assert len(setup.documents.asked) == FETCH


async def test_keys_from_another_address_are_not_carried_over() -> None:
    setup = VerifierSetup(OLD)
    setup.store.change(issuer(jwks_url="https://elsewhere.example.com/keys"))
    with pytest.raises(IssuerUnavailable):
        await setup.verifier.verify(OLD.sign(claims()))


async def test_a_jwks_url_goes_before_discovery() -> None:
    setup = unfetched(OLD)
    where = "https://elsewhere.example.com/keys"
    setup.store.change(issuer(jwks_url=where))
    setup.documents.documents = {where: {"keys": [NEW.jwk]}}
    assert await setup.verifier.verify(NEW.sign(claims())) is not None
    assert setup.documents.asked == [where]


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": ISSUER + "/"},
        {"issuer": ISSUER.upper()},
        {"issuer": None},
        {"issuer": [ISSUER]},
        {"jwks_uri": None},
        {"jwks_uri": ["https://id.example.com"]},
    ],
)
async def test_discovery_about_somebody_else(changed: dict[str, Any]) -> None:
    setup = unfetched(OLD)
    where = f"{ISSUER}/.well-known/openid-configuration"
    setup.documents.documents[where] = {**setup.documents.documents[where], **changed}
    with pytest.raises(IssuerUnavailable):
        await setup.verifier.verify(OLD.sign(claims()))


async def test_a_disabled_issuer_is_refused_within_a_second_and_its_terms_count_at_once() -> None:
    setup = VerifierSetup(OLD)
    text = OLD.sign(claims())
    assert await setup.verifier.verify(text) is not None
    setup.store.change(issuer(is_enabled=False))
    setup.clock.advance(MAX_AGE_S + 0.01)
    assert await setup.refusal(text) == "its issuer is disabled"
    setup.store.change(issuer(audiences=frozenset({"another"})))
    setup.clock.advance(MAX_AGE_S + 0.01)
    assert await setup.refusal(text)
    setup.store.change(issuer())
    setup.clock.advance(MAX_AGE_S + 0.01)
    assert await setup.verifier.verify(text) is not None
    del setup.store.issuers["main"]
    setup.clock.advance(MAX_AGE_S + 0.01)
    assert await setup.refusal(text)


async def test_without_the_store_nobody_is_let_in_for_longer_than_a_second() -> None:
    setup = VerifierSetup(OLD)
    text = OLD.sign(claims())
    assert await setup.verifier.verify(text) is not None
    setup.store.is_away = True
    setup.clock.advance(MAX_AGE_S)
    assert await setup.verifier.verify(text) is not None
    setup.clock.advance(0.01)
    with pytest.raises(StoreUnavailable):
        await setup.verifier.verify(text)


class DisablingDocuments(FakeDocuments):
    """While the keys are being fetched, an administrator disables the issuer."""

    def __init__(self, inner: IssuerDocuments, setup: VerifierSetup) -> None:
        super().__init__()
        self.inner, self.setup = inner, setup

    async def fetch_object(self, url: str) -> Any:
        self.setup.store.change(issuer(is_enabled=False))
        self.setup.clock.advance(1)
        return await self.inner.fetch_object(url)


async def test_an_issuer_that_is_disabled_during_the_fetch() -> None:
    setup = unfetched(OLD)
    verifier = JwtVerifier(setup.store, DisablingDocuments(setup.documents, setup), setup.clock)
    assert await verifier.verify(OLD.sign(claims())) is None


async def test_without_a_kid_the_only_key_is_meant() -> None:
    header = {"alg": "ES256", "typ": "JWT"}
    assert await VerifierSetup(OLD).verifier.verify(OLD.sign(claims(), header)) is not None
    assert await VerifierSetup(OLD, NEW).verifier.verify(OLD.sign(claims(), header)) is None


def test_which_keys_are_used() -> None:
    good = OLD.jwk
    small = Signer("small", "RS256", rsa_key(9, bits=1024)).jwk
    private = {**good, "d": "AQAB"}
    passed_over: list[Any] = [
        private,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "key_ops": "verify"},
        {**good, "alg": "ES384"},
        {**good, "alg": "none"},
        {**good, "crv": "secp256k1"},
        {**good, "x": good["y"]},
        {**good, "kid": 1},
        {**good, "kid": "k" * 257},
        {**good, "kty": "RSA"},
        {"kty": "EC"},
        {},
        None,
        "key",
    ]
    assert read_keys(passed_over, Family.ES).keys == ()
    assert [key.jwk["kid"] for key in read_keys([*passed_over, good], Family.ES).keys] == ["old"]
    assert read_keys([small], Family.RS).keys == ()
    assert read_keys([signer("RS256").jwk], Family.PS).keys == ()
    assert read_keys([good] * (MAX_KEYS + 1), Family.ES).keys != ()
    strange: list[Any] = [None, {}, "keys", 1, [[]]]
    for jwks in strange:
        assert read_keys(jwks, Family.ES).keys == ()


def test_a_key_without_an_algorithm_checks_its_whole_family() -> None:
    jwk = {name: value for name, value in signer("RS256").jwk.items() if name != "alg"}
    (key,) = read_keys([jwk], Family.RS).keys
    assert set(key.by_algorithm) == {"RS256", "RS384", "RS512"}


async def test_an_older_load_never_counts_as_young() -> None:
    """A process that is stopped while it asks, and wakes up, asks again."""
    setup = VerifierSetup()
    pauses_s = [5.0, 0.0]

    async def load() -> str:
        setup.clock.advance(pauses_s[0])
        return f"after {pauses_s.pop(0)}"

    assert await Fresh(load, setup.clock).get() == "after 0.0"
    pauses_s[:] = [5.0, 5.0]
    with pytest.raises(StoreUnavailable):
        await Fresh(load, setup.clock).get()


async def test_a_load_that_fails_is_told_to_all_who_wait() -> None:
    setup = VerifierSetup()
    setup.store.is_away = True
    fresh = Fresh(setup.store.load_issuers, setup.clock)
    told = await asyncio.gather(*(fresh.get() for _ in range(9)), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in told) and setup.store.loads == 1


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = VerifierSetup(OLD)
    memory = VerifiedCache(setup.clock, max_cached=10)
    monkeypatch.setattr(setup.verifier, "_cache", memory)
    for number in range(50):
        text = OLD.sign(claims(sub=str(number)))
        assert await setup.verifier.verify(text) is not None
        assert await setup.verifier.verify(text[:-8] + "AAAAAAAA") is None
    assert len(memory) == 20


async def test_a_jwt_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    real = JwtVerifier._judge

    async def counted(self: JwtVerifier, unverified: Any) -> Any:
        checks.append(unverified)
        return await real(self, unverified)

    monkeypatch.setattr(JwtVerifier, "_judge", counted)
    setup = VerifierSetup(OLD)
    text = OLD.sign(claims())
    for _ in range(5):
        assert await setup.verifier.verify(text) is not None
        assert await setup.verifier.verify(text[:-8] + "AAAAAAAA") is None
    assert len(checks) == 2
