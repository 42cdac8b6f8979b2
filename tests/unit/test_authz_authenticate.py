"""Which credential a request presents, and how principals are remembered."""

import asyncio
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from authz.authenticate import Authenticator, presented_credential
from authz.decision import Deny, Reason
from authz.metrics import Metrics
from authz.principals import PrincipalCache
from authz.request import AuthRequest
from meter.accounts import Principal
from meter.clock import ManualClock
from meter.credentials import Pepper, mint
from meter.errors import StoreUnavailable
from tests.fakes import EPOCH, FakePrincipals, principal

PEPPER = Pepper(bytes.fromhex("00" * 32))


def request(*headers: tuple[str, str]) -> AuthRequest:
    return AuthRequest("POST", "/v1/completions", headers, b"")


def make(
    fake: FakePrincipals, max_cached: int = 10
) -> tuple[Authenticator, PrincipalCache, ManualClock]:
    clock = ManualClock(EPOCH)
    cache = PrincipalCache(fake, clock, Metrics(CollectorRegistry()), 0.9, max_cached)
    return Authenticator(PEPPER, cache), cache, clock


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
    presented = presented_credential(request(*headers))
    assert (presented.reason if isinstance(presented, Deny) else presented) == expected


async def test_finds_the_principal_of_a_key() -> None:
    key = mint().plain.reveal()
    fake = FakePrincipals({PEPPER.digest(key): principal()})
    authenticator, _, _ = make(fake)
    found = await authenticator.authenticate(request(("x-api-key", key)))
    assert isinstance(found, Principal)


async def test_malformed_keys_are_refused_like_unknown_ones_but_without_a_look_up() -> None:
    fake = FakePrincipals()
    authenticator, _, _ = make(fake)
    key = mint().plain.reveal()
    answers = [
        await authenticator.authenticate(request(("x-api-key", text)))
        for text in ("sk-or-something", key[:-1] + "!", "Basic x", "tk-ü" * 20)
    ]
    assert fake.lookups == 0
    answers.append(await authenticator.authenticate(request(("x-api-key", key))))
    assert fake.lookups == 1
    assert all(one == other for one, other in pairwise(answers))
    assert isinstance(answers[0], Deny)
    assert answers[0].reason is Reason.INVALID_API_KEY


async def test_an_answer_is_remembered_for_less_than_a_second() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, clock = make(fake)
    for digest in (b"known", b"unknown"):
        fake.lookups = 0
        await cache.find_principal(digest)
        clock.advance(0.89)
        await cache.find_principal(digest)
        assert fake.lookups == 1
        clock.advance(0.02)
        await cache.find_principal(digest)
        assert fake.lookups == 2


async def test_the_age_counts_from_the_beginning_of_the_look_up() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, clock = make(fake)
    fake.gate = asyncio.Event()
    asking = asyncio.create_task(cache.find_principal(b"known"))
    await asyncio.sleep(0)
    clock.advance(5)
    fake.gate.set()
    await asking
    await cache.find_principal(b"known")
    assert fake.lookups == 2


async def test_many_askers_share_one_look_up_and_may_leave() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, _ = make(fake)
    fake.gate = asyncio.Event()
    askers = [asyncio.create_task(cache.find_principal(b"known")) for _ in range(5)]
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
        await cache.find_principal(b"known")
    fake.is_away = False
    assert await cache.find_principal(b"known") == principal()


async def test_unknown_credentials_do_not_push_out_known_ones() -> None:
    fake = FakePrincipals({b"known": principal()})
    _, cache, _ = make(fake, max_cached=10)
    await cache.find_principal(b"known")
    for number in range(50):
        await cache.find_principal(str(number).encode())
    fake.lookups = 0
    await cache.find_principal(b"known")
    assert fake.lookups == 0
