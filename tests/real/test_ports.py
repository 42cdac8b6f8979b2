"""One suite for each port of a store: the fakes of the unit tests keep what the real ones promise.

Each test gets every implementation in turn. A fake that does not keep a promise here would let a
unit test pass that the real store fails.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from authz.callers.principal_cache import PrincipalCache
from authz.limits.answer import Limiter, LimitUse
from authz.limits.redis_limiter import RedisLimiter
from authz.metrics import Metrics
from meter.audit.events import Actor
from meter.clock import ManualClock, SystemClock
from meter.holds.hold import HoldPlaced, HoldRefused, HoldRequest, Holds, Refusal
from meter.identity.issuer_store import NewIssuer, PostgresIssuers
from meter.identity.principal import (
    ByAccount,
    ByCertificate,
    ByIdentity,
    ByKey,
    ByPass,
    Principal,
    Principals,
)
from meter.identity.principal_store import PostgresPrincipals
from meter.identity.signing_key_store import PublishedKeys, SigningKeys
from meter.jwts.issuers import IssuerStore
from meter.jwts.keys import read_key
from meter.jwts.passes import OWN_ALGORITHMS, PassKeys
from meter.jwts.verified import VerifiedIdentity, VerifiedPass
from meter.limits.limits import AppliesTo, CountedPer, Limit, LimitKind, LimitRule
from meter.limits.redis_windows import RedisLimitWindows, connect
from meter.limits.rule_store import LimitRuleStore
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.scopes import Scope
from meter.sealing import MasterKey, SecretText
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.port import SettlementStore
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.token_counting import CountingSettlementStore, TokenCounter
from tests.books import MODEL, PEPPER, USD, Books, Payer, observed, offered
from tests.fakes import (
    EPOCH,
    FakeCatalogue,
    FakeHolds,
    FakeLimiter,
    FakeLimitRules,
    FakePrincipals,
    FakeProviderKeys,
)
from tests.jwts import NOW, FakeIssuers, FakePassKeys, issuer, signer, stored
from tests.patience import WAIT_S
from tests.real.authz.limits.test_limits import make as redis_limiter
from tests.settlements import FakeSettlementStore

ADMINISTRATOR = Actor("operator:test")
MASTER_KEY = MasterKey(b"m" * 32)


# Holds


@pytest_asyncio.fixture
async def payer(books: Books) -> Payer:
    return await books.payer("ada", USD)


@pytest.fixture(params=["fake", "postgres"])
def holds(request: pytest.FixtureRequest, books: Books) -> Holds:
    return FakeHolds(USD) if request.param == "fake" else books.holds


async def placed(holds: Holds, request: HoldRequest) -> HoldPlaced:
    answer = await holds.place(request)
    assert isinstance(answer, HoldPlaced), answer
    return answer


async def test_a_hold_is_the_whole_estimate(books: Books, payer: Payer, holds: Holds) -> None:
    request = books.request(payer, USD // 10, USD // 100, min_tokens=1, max_tokens=20)
    assert await placed(holds, request) == HoldPlaced(request.hold_id, 3 * USD // 10, 20)


async def test_fewer_tokens_are_held_where_money_is_short(
    books: Books, payer: Payer, holds: Holds
) -> None:
    request = books.request(payer, USD // 2, USD // 10, min_tokens=1, max_tokens=100)
    assert await placed(holds, request) == HoldPlaced(request.hold_id, USD, 5)


async def test_held_money_is_not_given_out_twice(books: Books, payer: Payer, holds: Holds) -> None:
    await placed(holds, books.request(payer, USD * 3 // 4))
    refused = await holds.place(books.request(payer, USD // 2))
    assert refused == HoldRefused(Refusal.INSUFFICIENT, USD // 2, USD // 4)


async def test_a_hold_is_released_once(books: Books, payer: Payer, holds: Holds) -> None:
    request = books.request(payer, USD)
    await placed(holds, request)
    assert await holds.release([request.hold_id]) == 1
    assert await holds.release([request.hold_id]) == 0
    await placed(holds, books.request(payer, USD))


async def until_all_is_available(books: Books, payer: Payer, holds: Holds) -> None:
    async with asyncio.timeout(WAIT_S):
        while not isinstance(await holds.place(books.request(payer, USD)), HoldPlaced):  # noqa: ASYNC110 - nothing to wait for but the answer.
            await asyncio.sleep(0.01)


async def test_a_hold_may_be_released_later(books: Books, payer: Payer, holds: Holds) -> None:
    request = books.request(payer, USD)
    await placed(holds, request)
    holds.release_later([request.hold_id])
    await until_all_is_available(books, payer, holds)


async def test_a_cancelled_call_leaves_no_hold(books: Books, payer: Payer, holds: Holds) -> None:
    if isinstance(holds, FakeHolds):
        holds.gate = asyncio.Event()
    placing = asyncio.create_task(holds.place(books.request(payer, USD)))
    await asyncio.sleep(0)
    placing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await placing
    if isinstance(holds, FakeHolds):
        holds.gate = None
    await until_all_is_available(books, payer, holds)


# Principals


@pytest_asyncio.fixture(params=["fake", "postgres", "cache"])
async def principals(request: pytest.FixtureRequest, books: Books, payer: Payer) -> Principals:
    store = PostgresPrincipals(books.pool)
    if request.param == "postgres":
        return store
    if request.param == "cache":
        clock, metrics = SystemClock(), Metrics(CollectorRegistry())
        return PrincipalCache(store, clock, metrics, max_age_s=1, first_lookups_per_s=100)
    digest = PEPPER.digest(payer.plain_key)
    known: dict[object, Principal | None] = {digest: await store.find(ByKey(digest))}
    known["account", payer.account_id] = await store.find(ByAccount(payer.account_id))
    return FakePrincipals({key: found for key, found in known.items() if found is not None})


async def test_a_key_and_an_account_have_principals(principals: Principals, payer: Payer) -> None:
    found = await principals.find(ByKey(PEPPER.digest(payer.plain_key)))
    assert found is not None
    assert (found.credential_id, found.account_id) == (payer.credential_id, payer.account_id)
    routed = await principals.find(ByAccount(payer.account_id))
    assert routed is not None
    assert routed.account_id == payer.account_id
    assert routed.credential_id != payer.credential_id


UNKNOWN_IDENTITY = VerifiedIdentity(
    issuer_id="nobody",
    subject="eve",
    account_subject="eve",
    scopes=frozenset({Scope.INFERENCE}),
    plan_id=None,
    may_create=False,
    name=None,
    ends_at=NOW,
    issued_at=NOW,
)


@pytest.mark.parametrize(
    "presented",
    [
        ByKey(b"unknown"),
        ByPass(VerifiedPass("unknown-pass-id-0123", NOW)),
        ByIdentity(UNKNOWN_IDENTITY),
        ByCertificate("eve.example.com"),
        ByAccount("eve"),
    ],
    ids=lambda presented: type(presented).__name__,
)
async def test_what_is_unknown_has_no_principal(
    principals: Principals, presented: ByKey | ByPass | ByIdentity | ByCertificate | ByAccount
) -> None:
    assert await principals.find(presented) is None


# Issuers and their keys


@pytest_asyncio.fixture(params=["fake", "postgres"])
async def issuers(request: pytest.FixtureRequest, books: Books) -> IssuerStore:
    """One issuer that is enabled and one that is not, neither with keys."""
    every = [issuer(), issuer(issuer_id="off", url="https://off.example.com", is_enabled=False)]
    if request.param == "fake":
        return FakeIssuers(
            *(replace(stored(one, [], NOW), keys=None, keys_fetched_at=None) for one in every)
        )
    store = PostgresIssuers(books.pool)
    for one in every:
        await store.put(NewIssuer(one.id, one.url, one.terms, one.is_enabled), ADMINISTRATOR)
    return store


async def test_disabled_issuers_are_loaded_too(issuers: IssuerStore) -> None:
    loaded = {one.issuer.id: one for one in await issuers.load_issuers()}
    assert {name: one.issuer.is_enabled for name, one in loaded.items()} == {
        "main": True,
        "off": False,
    }
    assert all((one.keys, one.keys_fetched_at) == (None, None) for one in loaded.values())


async def test_the_newest_key_set_of_an_issuer_stays(issuers: IssuerStore) -> None:
    older, newer = {"keys": [{"kid": "older"}]}, {"keys": [{"kid": "newer"}]}
    await issuers.save_keys("main", newer, NOW)
    await issuers.save_keys("main", older, NOW - timedelta(seconds=1))
    # It was removed while its keys were fetched.
    await issuers.save_keys("removed", newer, NOW)
    (main,) = [one for one in await issuers.load_issuers() if one.issuer.id == "main"]
    assert (main.keys, main.keys_fetched_at) == (newer, NOW)


@pytest_asyncio.fixture(params=["fake", "postgres"])
async def pass_keys(request: pytest.FixtureRequest, books: Books) -> PassKeys:
    if request.param == "fake":
        return FakePassKeys(signer("EdDSA").jwk)
    clock = ManualClock(EPOCH)
    await SigningKeys(books.pool, MASTER_KEY, clock, "EdDSA").current()
    return PublishedKeys(books.pool, clock)


async def test_published_keys_verify_and_sign_nothing(pass_keys: PassKeys) -> None:
    ((kid, jwk),) = (await pass_keys.load_public_keys()).items()
    assert jwk["kid"] == kid
    assert read_key(dict(jwk), OWN_ALGORITHMS) is not None
    assert "d" not in jwk


# What authz caches: models, provider keys, limit rules


@pytest_asyncio.fixture(params=["fake", "postgres"])
async def catalogue(request: pytest.FixtureRequest, books: Books) -> PostgresCatalogue:
    real = PostgresCatalogue(books.pool)
    await real.save("openrouter", [offered(), offered("acme/two", request_picos=7)])
    return (
        real if request.param == "postgres" else FakeCatalogue(*(await real.load_models()).values())
    )


async def test_models_are_loaded_by_id_with_their_prices(catalogue: PostgresCatalogue) -> None:
    models = await catalogue.load_models()
    assert models.keys() == {MODEL, "acme/two"}
    assert all(name == found.id == found.price.model_id for name, found in models.items())
    assert models["acme/two"].price.request_picos == 7


@pytest.fixture(params=["fake", "postgres"])
def provider_keys(request: pytest.FixtureRequest, books: Books) -> PostgresProviderKeys:
    real = PostgresProviderKeys(books.pool, MASTER_KEY)
    return FakeProviderKeys(None) if request.param == "fake" else real


async def test_a_provider_key_is_found_once_it_is_set(provider_keys: PostgresProviderKeys) -> None:
    assert await provider_keys.find_key("openrouter", SYSTEM_OWNER) is None
    if isinstance(provider_keys, FakeProviderKeys):
        provider_keys.key = "sk-or-test"
    else:
        await provider_keys.set_key("openrouter", SYSTEM_OWNER, SecretText("sk-or-test"))
    found = await provider_keys.find_key("openrouter", SYSTEM_OWNER)
    assert found is not None
    assert found.plain.reveal() == "sk-or-test"


@pytest_asyncio.fixture(params=["fake", "postgres"])
async def limit_rules(request: pytest.FixtureRequest, books: Books) -> LimitRuleStore:
    rules = [
        LimitRule(name, AppliesTo.EVERYONE, None, CountedPer.RULE, None, 5, None, is_shadow=False)
        for name in ("later", "earlier")
    ]
    if request.param == "fake":
        return FakeLimitRules(*rules)
    store = LimitRuleStore(books.pool)
    for rule in rules:
        await store.put(ADMINISTRATOR, rule)
    return store


async def test_limit_rules_come_in_order_of_their_ids(limit_rules: LimitRuleStore) -> None:
    assert [rule.id for rule in await limit_rules.list_all()] == ["earlier", "later"]


# Limits


@pytest_asyncio.fixture(params=["fake", "redis"])
async def limiter(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Limiter]:
    if request.param == "fake":
        yield FakeLimiter(ManualClock(EPOCH))
        return
    made: RedisLimiter = redis_limiter(redis_url)
    yield made
    await made.close()


def use(
    limit: int, bucket: str = "account:a", amount: int = 1, is_shadow: bool = False
) -> LimitUse:
    return LimitUse(Limit(bucket, LimitKind.REQUESTS, limit, is_shadow), amount)


async def test_a_limit_admits_as_many_as_it_says(limiter: Limiter) -> None:
    for left in (2, 1, 0):
        answer = await limiter.take([use(3)])
        assert answer.refused_by is None
        assert [(one.kind, one.limit, one.remaining) for one in answer.statuses] == [
            ("requests", 3, left)
        ]
    refused = await limiter.take([use(3)])
    assert refused.refused_by == use(3).limit
    assert refused.retry_after_s is not None
    assert 0 < refused.retry_after_s <= 61  # a window ends with its slot


async def test_a_refused_check_counts_in_no_bucket(limiter: Limiter) -> None:
    await limiter.take([use(1)])
    assert (await limiter.take([use(5, "key:k"), use(1)])).refused_by == use(1).limit
    (status,) = (await limiter.take([use(5, "key:k")])).statuses
    assert status.remaining == 4


async def test_the_tightest_limit_of_a_kind_is_shown(limiter: Limiter) -> None:
    (status,) = (await limiter.take([use(9), use(3, "key:k")])).statuses
    assert (status.limit, status.remaining) == (3, 2)


async def test_more_than_a_limit_is_never_admitted(limiter: Limiter) -> None:
    assert (await limiter.take([use(3, amount=4)])).refused_by == use(3).limit


async def test_a_limit_in_shadow_mode_is_reported_and_refuses_nobody(limiter: Limiter) -> None:
    shadow = use(1, is_shadow=True)
    assert (await limiter.take([shadow])).shadow_refusals == ()
    answer = await limiter.take([shadow])
    assert (answer.refused_by, answer.shadow_refusals) == (None, (shadow.limit,))
    assert answer.statuses == ()


# Settlements


@pytest.fixture(params=["fake", "postgres", "counting"])
def settlements(request: pytest.FixtureRequest, books: Books, redis_url: str) -> SettlementStore:
    if request.param == "fake":
        return FakeSettlementStore()
    real = PostgresSettlementStore(books.pool)
    if request.param == "postgres":
        return real
    windows = RedisLimitWindows(connect(redis_url, WAIT_S), SystemClock(), WAIT_S)
    return CountingSettlementStore(real, TokenCounter(windows, CollectorRegistry()))


async def test_a_hold_is_settled_once(
    settlements: SettlementStore, books: Books, payer: Payer
) -> None:
    hold_id = await books.held(payer, USD // 10)
    (first,) = await settlements.settle([observed(hold_id)])
    (again,) = await settlements.settle([observed(hold_id)])
    assert (first.duplicates, again.duplicates) == (0, 1)


async def test_a_batch_that_names_a_hold_twice_has_changes_for_each(
    settlements: SettlementStore, books: Books, payer: Payer
) -> None:
    one, other = [await books.held(payer, USD // 10) for _ in range(2)]
    committed = await settlements.settle([observed(one), observed(other), observed(one)])
    assert [changes.duplicates for changes in committed] == [0, 1]


async def test_policy_ends_no_hold_that_has_ended(
    settlements: SettlementStore, books: Books, payer: Payer
) -> None:
    one, other = [await books.held(payer, USD // 10) for _ in range(2)]
    await settlements.settle([observed(one)])
    void = [
        PolicyDecision(hold, PolicyVerdict.VOID, Rule.NOT_REPORTED, None) for hold in (one, other)
    ]
    assert (await settlements.end_by_policy(void)).duplicates == 1
    assert (await settlements.end_by_policy(void)).duplicates == 2
