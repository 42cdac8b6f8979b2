"""Key sets: fetched seldom, shared by the store, used as long as the terms say and no longer."""

import asyncio
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest

from meter.errors import IssuerUnavailable, StoreUnavailable
from meter.jwts.fetching import DocumentSource
from meter.jwts.fresh import MAX_AGE_S, Fresh
from meter.jwts.issuers import StoredIssuer
from meter.jwts.key_sets import FETCH_INTERVAL_S, REFRESH_AFTER_S
from meter.jwts.keys import MAX_KEYS, read_keys
from meter.jwts.memory import Memory
from meter.jwts.terms import DEFAULT_KEY_AGE_S, Family
from meter.jwts.verifying import JwtVerifier
from tests.jwts import (
    ISSUER,
    NOW,
    NOW_S,
    Desk,
    FakeDocuments,
    Signer,
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


def unfetched(*signers: Signer) -> Desk:
    """An issuer that was never asked, and publishes these keys."""
    desk = Desk()
    desk.store.issuers["main"] = StoredIssuer(issuer(), None, None)
    desk.documents.publish(ISSUER, *signers)
    return desk


def long_lived(by: Signer) -> str:
    return by.sign(claims(exp=NOW_S + 20 * 86_400))


async def settle() -> None:
    """Let fetches in the background come to their end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_first_jwt_fetches_the_keys_and_the_store_keeps_them() -> None:
    desk = unfetched(OLD)
    assert await desk.verifier.verify(OLD.sign(claims())) is not None
    kept = desk.store.issuers["main"]
    assert kept.keys_fetched_at == NOW and kept.keys is not None
    assert [jwk["kid"] for jwk in kept.keys["keys"]] == ["old"]


async def test_a_rotated_key_is_believed_and_a_removed_one_is_not() -> None:
    desk = unfetched(OLD)
    before, after = long_lived(OLD), long_lived(NEW)
    assert await desk.verifier.verify(before) is not None
    desk.documents.publish(ISSUER, NEW)
    desk.clock.advance(FETCH_INTERVAL_S)
    assert await desk.verifier.verify(after) is not None
    assert await desk.verifier.verify(before) is None


async def test_ten_thousand_unknown_kids_cause_one_fetch_in_thirty_seconds() -> None:
    desk = unfetched(OLD)
    _, payload, signature = OLD.sign(claims()).split(".")
    tracemalloc.start()
    for number in range(10_000):
        desk.clock.advance(0.004)
        text = f"{signer_header(f'random-{number}')}.{payload}.{signature}"
        assert await desk.verifier.verify(text) is None
    grown_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(desk.documents.asked) == 2 * FETCH
    assert grown_bytes < 1_000_000


def signer_header(kid: str) -> str:
    return b64(as_bytes({"alg": "ES256", "kid": kid, "typ": "JWT"}))


async def test_many_at_once_share_one_fetch() -> None:
    desk = unfetched(OLD)
    good = [OLD.sign(claims(sub=str(number))) for number in range(50)]
    verified = await asyncio.gather(*(desk.verifier.verify(text) for text in good))
    assert None not in verified and len(desk.documents.asked) == FETCH
    assert desk.store.loads <= 2


async def test_keys_are_refreshed_beside_the_answer() -> None:
    desk = unfetched(OLD)
    text = long_lived(OLD)
    assert await desk.verifier.verify(text) is not None
    desk.clock.advance(REFRESH_AFTER_S + 1)
    for _ in range(3):
        assert await desk.verifier.verify(text) is not None
        await settle()
    assert len(desk.documents.asked) == 2 * FETCH


async def test_an_outage_is_survived_up_to_the_stated_age_and_no_longer() -> None:
    desk = unfetched(OLD)
    text = long_lived(OLD)
    assert await desk.verifier.verify(text) is not None
    desk.documents.documents.clear()
    desk.clock.advance(DEFAULT_KEY_AGE_S)
    assert await desk.verifier.verify(text) is not None
    assert await desk.verifier.verify(long_lived(NEW)) is None
    desk.clock.advance(1)
    with pytest.raises(IssuerUnavailable):
        await desk.verifier.verify(text)


async def test_after_the_outage_all_is_well() -> None:
    desk = unfetched()
    desk.documents.documents.clear()
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await desk.verifier.verify(long_lived(OLD))
    assert len(desk.documents.asked) == 1
    desk.documents.publish(ISSUER, OLD)
    desk.clock.advance(FETCH_INTERVAL_S)
    assert await desk.verifier.verify(long_lived(OLD)) is not None


async def test_a_restart_in_an_outage_uses_what_the_store_kept() -> None:
    desk = Desk(OLD)
    desk.clock.advance(DEFAULT_KEY_AGE_S - 60)
    assert await desk.verifier.verify(long_lived(OLD)) is not None
    desk.clock.advance(61)
    with pytest.raises(IssuerUnavailable):
        await desk.verifier.verify(long_lived(OLD))


async def test_one_process_uses_what_another_fetched() -> None:
    desk = unfetched(OLD)
    assert await desk.verifier.verify(long_lived(OLD)) is not None
    other = JwtVerifier(desk.store, desk.documents, desk.clock)
    assert await other.verify(long_lived(OLD)) is not None
    assert len(desk.documents.asked) == FETCH
    desk.clock.advance(60)
    desk.store.issuers["main"] = stored(issuer(), [NEW.jwk], desk.clock.now())
    assert await other.verify(long_lived(NEW)) is not None
    assert len(desk.documents.asked) == FETCH


async def test_a_set_by_a_clock_ahead_of_ours_does_not_stay_the_youngest() -> None:
    desk = Desk(OLD)
    desk.documents.publish(ISSUER, NEW)
    ahead = NOW + timedelta(hours=1)
    desk.store.issuers["main"] = stored(issuer(), [OLD.jwk], ahead)
    for _ in range(3):
        assert await desk.verifier.verify(NEW.sign(claims())) is not None
        desk.store.issuers["main"] = stored(issuer(), [OLD.jwk], ahead)
        desk.clock.advance(1)
    assert len(desk.documents.asked) == FETCH


async def test_keys_from_another_address_are_not_carried_over() -> None:
    desk = Desk(OLD)
    desk.store.change(issuer(jwks_url="https://elsewhere.example.com/keys"))
    with pytest.raises(IssuerUnavailable):
        await desk.verifier.verify(OLD.sign(claims()))


async def test_a_jwks_url_goes_before_discovery() -> None:
    desk = unfetched(OLD)
    where = "https://elsewhere.example.com/keys"
    desk.store.change(issuer(jwks_url=where))
    desk.documents.documents = {where: {"keys": [NEW.jwk]}}
    assert await desk.verifier.verify(NEW.sign(claims())) is not None
    assert desk.documents.asked == [where]


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
    desk = unfetched(OLD)
    where = f"{ISSUER}/.well-known/openid-configuration"
    desk.documents.documents[where] = {**desk.documents.documents[where], **changed}
    with pytest.raises(IssuerUnavailable):
        await desk.verifier.verify(OLD.sign(claims()))


async def test_a_disabled_issuer_is_refused_within_a_second_and_its_terms_count_at_once() -> None:
    desk = Desk(OLD)
    text = OLD.sign(claims())
    assert await desk.verifier.verify(text) is not None
    desk.store.change(issuer(is_enabled=False))
    desk.clock.advance(MAX_AGE_S + 0.01)
    assert await desk.refusal(text) == "its issuer is disabled"
    desk.store.change(issuer(audiences=frozenset({"another"})))
    desk.clock.advance(MAX_AGE_S + 0.01)
    assert await desk.refusal(text)
    desk.store.change(issuer())
    desk.clock.advance(MAX_AGE_S + 0.01)
    assert await desk.verifier.verify(text) is not None
    del desk.store.issuers["main"]
    desk.clock.advance(MAX_AGE_S + 0.01)
    assert await desk.refusal(text)


async def test_without_the_store_nobody_is_let_in_for_longer_than_a_second() -> None:
    desk = Desk(OLD)
    text = OLD.sign(claims())
    assert await desk.verifier.verify(text) is not None
    desk.store.is_away = True
    desk.clock.advance(MAX_AGE_S)
    assert await desk.verifier.verify(text) is not None
    desk.clock.advance(0.01)
    with pytest.raises(StoreUnavailable):
        await desk.verifier.verify(text)


class DisablingDocuments(FakeDocuments):
    """While the keys are being fetched, an administrator disables the issuer."""

    def __init__(self, inner: DocumentSource, desk: Desk) -> None:
        super().__init__()
        self.inner, self.desk = inner, desk

    async def fetch_object(self, url: str) -> Any:
        self.desk.store.change(issuer(is_enabled=False))
        self.desk.clock.advance(1)
        return await self.inner.fetch_object(url)


async def test_an_issuer_that_is_disabled_during_the_fetch() -> None:
    desk = unfetched(OLD)
    verifier = JwtVerifier(desk.store, DisablingDocuments(desk.documents, desk), desk.clock)
    assert await verifier.verify(OLD.sign(claims())) is None


async def test_without_a_kid_the_only_key_is_meant() -> None:
    header = {"alg": "ES256", "typ": "JWT"}
    assert await Desk(OLD).verifier.verify(OLD.sign(claims(), header)) is not None
    assert await Desk(OLD, NEW).verifier.verify(OLD.sign(claims(), header)) is None


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
    desk = Desk()
    pauses_s = [5.0, 0.0]

    async def load() -> str:
        desk.clock.advance(pauses_s[0])
        return f"after {pauses_s.pop(0)}"

    assert await Fresh(load, desk.clock).get() == "after 0.0"
    pauses_s[:] = [5.0, 5.0]
    with pytest.raises(StoreUnavailable):
        await Fresh(load, desk.clock).get()


async def test_a_load_that_fails_is_told_to_all_who_wait() -> None:
    desk = Desk()
    desk.store.is_away = True
    fresh = Fresh(desk.store.load_issuers, desk.clock)
    told = await asyncio.gather(*(fresh.get() for _ in range(9)), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in told) and desk.store.loads == 1


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(OLD)
    memory = Memory(desk.clock, max_remembered=10)
    monkeypatch.setattr(desk.verifier, "_memory", memory)
    for number in range(50):
        text = OLD.sign(claims(sub=str(number)))
        assert await desk.verifier.verify(text) is not None
        assert await desk.verifier.verify(text[:-8] + "AAAAAAAA") is None
    assert len(memory) == 20


async def test_a_jwt_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    real = JwtVerifier._judge

    async def counted(self: JwtVerifier, unverified: Any) -> Any:
        checks.append(unverified)
        return await real(self, unverified)

    monkeypatch.setattr(JwtVerifier, "_judge", counted)
    desk = Desk(OLD)
    text = OLD.sign(claims())
    for _ in range(5):
        assert await desk.verifier.verify(text) is not None
        assert await desk.verifier.verify(text[:-8] + "AAAAAAAA") is None
    assert len(checks) == 2
