"""The choice of the credential that a request presents, and the memory of principals."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from authz.callers.authenticate import Authenticator, read_credential
from authz.callers.principal_cache import PrincipalCache
from authz.decision import Deny, Reason
from authz.fresh_answers import MAX_ANSWER_AGE_S
from authz.metrics import Metrics
from authz.policy import DEFAULT_POLICY, RoutePolicy
from authz.request import AuthRequest
from meter.clock import ManualClock
from meter.errors import StoreUnavailable
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.keys.key_text import Pepper, mint
from meter.identity.principal import ByIdentity, ByKey, Principal
from meter.jwts.verified import VerifiedIdentity, VerifiedPass
from meter.scopes import Scope
from tests.fakes import EPOCH, FakeJwts, FakePrincipals, principal

PEPPER = Pepper(bytes.fromhex("00" * 32))


def request(*headers: tuple[str, str]) -> AuthRequest:
    return AuthRequest("POST", "/v1/completions", headers, b"")


def make(
    fake: FakePrincipals, max_cached: int = 10
) -> tuple[Authenticator, PrincipalCache, ManualClock]:
    clock = ManualClock(EPOCH)
    cache = PrincipalCache(fake, clock, Metrics(CollectorRegistry()), 0.9, max_cached)
    return Authenticator(CredentialResolver(PEPPER, cache, FakeJwts())), cache, clock


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("authorization", "Bearer abc")], "abc"),
        ([("authorization", "bearer   abc ")], "abc"),
        ([("x-api-key", "abc")], "abc"),
        ([("authorization", "Bearer abc"), ("x-api-key", "abc")], "abc"),
        ([("authorization", "Basic abc")], "Basic abc"),
        ([("authorization", "Bearer "), ("x-api-key", "abc")], "abc"),
        ([], Reason.MISSING_API_KEY),
        ([("authorization", "")], Reason.MISSING_API_KEY),
        ([("authorization", "Bearer")], Reason.MISSING_API_KEY),
        ([("authorization", "Bearer  ")], Reason.MISSING_API_KEY),
        ([("x-api-key", " ")], Reason.MISSING_API_KEY),
        ([("authorization", "Bearer a"), ("x-api-key", "b")], Reason.CONFLICTING_CREDENTIALS),
        ([("authorization", "Bearer a")] * 2, Reason.CONFLICTING_CREDENTIALS),
        ([("x-api-key", "a")] * 2, Reason.CONFLICTING_CREDENTIALS),
        ([("authorization", "Bearer a,Bearer b")], Reason.CONFLICTING_CREDENTIALS),
        ([("x-api-key", "a, a")], Reason.CONFLICTING_CREDENTIALS),
        ([("authorization", "Basic x"), ("x-api-key", "b")], Reason.CONFLICTING_CREDENTIALS),
    ],
)
def test_exactly_one_credential(headers: list[tuple[str, str]], expected: str | Reason) -> None:
    presented = read_credential(request(*headers))
    assert (presented.reason if isinstance(presented, Deny) else presented) == expected


async def test_finds_the_principal_of_a_key() -> None:
    key = mint().plain.reveal()
    fake = FakePrincipals({PEPPER.digest(key): principal()})
    authenticator, _, _ = make(fake)
    found = await authenticator.authenticate(request(("x-api-key", key)), DEFAULT_POLICY)
    assert isinstance(found, Principal)


async def test_malformed_keys_are_refused_like_unknown_ones_but_without_a_look_up() -> None:
    fake = FakePrincipals()
    authenticator, _, _ = make(fake)
    key = mint().plain.reveal()
    answers = [
        await authenticator.authenticate(request(("x-api-key", text)), DEFAULT_POLICY)
        for text in ("sk-or-something", key[:-1] + "!", "Basic x", "tk-ü" * 20)
    ]
    assert fake.lookups == 0
    answers.append(await authenticator.authenticate(request(("x-api-key", key)), DEFAULT_POLICY))
    assert fake.lookups == 1
    assert all(one == other for one, other in pairwise(answers))
    assert isinstance(answers[0], Deny)
    assert answers[0].reason is Reason.INVALID_API_KEY


async def test_an_answer_is_remembered_for_less_than_a_second() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, clock = make(fake)
    for digest in (b"known", b"unknown"):
        fake.lookups = 0
        await cache.find(ByKey(digest))
        clock.advance(0.89)
        await cache.find(ByKey(digest))
        assert fake.lookups == 1
        clock.advance(0.02)
        await cache.find(ByKey(digest))
        assert fake.lookups == 2


async def test_the_age_counts_from_the_beginning_of_the_look_up() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, clock = make(fake)
    fake.gate = asyncio.Event()
    asking = asyncio.create_task(cache.find(ByKey(b"known")))
    await asyncio.sleep(0)
    clock.advance(5)
    fake.gate.set()
    await asking
    await cache.find(ByKey(b"known"))
    assert fake.lookups == 2


async def test_nobody_takes_the_answer_of_a_look_up_that_began_before_a_revocation() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, clock = make(fake)
    fake.gate = asyncio.Event()
    first = asyncio.create_task(cache.find(ByKey(b"known")))
    await asyncio.sleep(0)
    clock.advance(MAX_ANSWER_AGE_S - 0.01)
    joined = asyncio.create_task(cache.find(ByKey(b"known")))
    await asyncio.sleep(0)
    assert fake.lookups == 1
    # The store has read the row; the key is revoked; then the answer arrives.
    clock.advance(0.02)
    fake.gate.set()
    await asyncio.gather(first, joined)
    assert fake.lookups == 2


async def test_many_askers_share_one_look_up_and_may_leave() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, _ = make(fake)
    fake.gate = asyncio.Event()
    askers = [asyncio.create_task(cache.find(ByKey(b"known"))) for _ in range(5)]
    await asyncio.sleep(0)
    askers[0].cancel()
    fake.gate.set()
    found = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [principal()] * 4
    assert fake.lookups == 1


async def test_an_outage_lets_nobody_in_and_is_not_remembered() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, _ = make(fake)
    fake.is_away = True
    with pytest.raises(StoreUnavailable):
        await cache.find(ByKey(b"known"))
    fake.is_away = False
    assert await cache.find(ByKey(b"known")) == principal()


async def test_unknown_credentials_do_not_push_out_known_ones() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, _ = make(fake, max_cached=10)
    await cache.find(ByKey(b"known"))
    for number in range(50):
        await cache.find(ByKey(str(number).encode()))
    fake.lookups = 0
    await cache.find(ByKey(b"known"))
    assert fake.lookups == 0


async def test_a_pass_ends_when_it_or_its_credential_does() -> None:
    later = EPOCH + timedelta(minutes=5)
    for ends_at in (EPOCH, EPOCH + timedelta(hours=1), None):
        fake = FakePrincipals({"jti": replace(principal(), ends_at=ends_at, pass_id="jti")})
        resolver = CredentialResolver(PEPPER, fake, FakeJwts({"a.b.c": VerifiedPass("jti", later)}))
        found = await resolver.identify("a.b.c")
        assert found is not None and found.pass_id == "jti"
        assert found.ends_at == min(ends_at or later, later)
    assert await resolver.identify("a.b.d") is None


async def test_another_issuers_jwt_brings_its_own_scopes() -> None:
    identity = VerifiedIdentity(
        "sso", "ada", "ada", frozenset({Scope.ADMIN_READ}), None, False, None, EPOCH, EPOCH
    )
    fake = FakePrincipals({("sso", "ada"): principal()})
    resolver = CredentialResolver(PEPPER, fake, FakeJwts({"a.b.c": identity}))
    found = await resolver.identify("a.b.c")
    assert found is not None and found.scopes == {Scope.ADMIN_READ} and found.ends_at == EPOCH


async def test_a_certificate_counts_only_where_the_route_trusts_it_and_without_a_credential() -> (
    None
):
    key = mint().plain.reveal()
    by_key = replace(principal(), credential_id="of-the-key")
    fake = FakePrincipals({"spiffe://a/b": principal(), PEPPER.digest(key): by_key})
    authenticator, _, _ = make(fake)
    trusted = RoutePolicy(trusts_certificates=True)
    bare = replace(request(), certificate="spiffe://a/b")
    assert await authenticator.authenticate(bare, trusted) == principal()
    refused = await authenticator.authenticate(bare, DEFAULT_POLICY)
    assert isinstance(refused, Deny) and refused.reason is Reason.MISSING_API_KEY
    both = replace(request(("x-api-key", key)), certificate="spiffe://a/b")
    assert await authenticator.authenticate(both, trusted) == by_key
    for name in ("spiffe://a/c", "spiffe://a/\0"):
        refused = await authenticator.authenticate(replace(request(), certificate=name), trusted)
        assert isinstance(refused, Deny) and refused.reason is Reason.INVALID_API_KEY


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-tollkeeper-account", "a")] * 2,
        [("x-tollkeeper-account", "b")],
        [("x-tollkeeper-account", "nul\0")],
    ],
)
async def test_a_trusted_route_names_one_account(headers: list[tuple[str, str]]) -> None:
    # The last is what Postgres cannot even be asked for.
    found: dict[object, Principal] = {
        ("account", "a"): principal(),
        ("account", "nul\0"): principal(),
    }
    authenticator, _, _ = make(FakePrincipals(found))
    trusted = RoutePolicy(takes_account_header=True)
    named = request(("x-tollkeeper-account", "a"), ("authorization", "Bearer dummy"))
    assert await authenticator.authenticate(named, trusted) == principal()
    refused = await authenticator.authenticate(request(*headers), trusted)
    assert isinstance(refused, Deny) and refused.reason is Reason.INVALID_API_KEY


async def test_a_flood_of_unknown_keys_neither_grows_nor_asks_more_than_so_often() -> None:
    fake = FakePrincipals({b"known": principal()})
    clock = ManualClock(EPOCH)
    cache = PrincipalCache(fake, clock, Metrics(CollectorRegistry()), 0.9, 50, 20)
    await cache.find(ByKey(b"known"))
    refused = 0
    for number in range(10_000):
        clock.advance(0.001)
        try:
            await cache.find(ByKey(number.to_bytes(4, "big")))
        except StoreUnavailable:
            refused += 1
        if number % 500 == 0:
            # Who was let in before is asked about again all the same.
            assert await cache.find(ByKey(b"known")) == principal()
    unknown = 10_000 - refused
    assert 200 <= unknown <= 20 + 20 * 10
    assert len(cache._unknown) <= 50


async def test_what_a_jwt_says_of_its_account_and_plan_is_part_of_what_is_remembered() -> None:
    """One subject may act for two organisations: neither is taken for the other."""
    fake = FakePrincipals({("sso", "ada"): principal()})
    _, cache, _ = make(fake)
    ada = VerifiedIdentity(
        "sso", "ada", "ada", frozenset({Scope.INFERENCE}), None, False, None, EPOCH, EPOCH
    )
    others = [replace(ada, account_subject="acme"), replace(ada, plan_id="gold")]
    for identity in (ada, *others, ada):
        await cache.find(ByIdentity(identity))
    assert fake.lookups == 3
