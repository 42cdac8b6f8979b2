"""The phases of a decision, with the outside in memory."""

import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from authz.callers.authenticate import Authenticator
from authz.callers.last_uses import LastUses
from authz.callers.principal_cache import PrincipalCache
from authz.catalogue import CatalogueSnapshot, KeyState
from authz.decide import DeadlinePassed, Decider, Terms
from authz.decision import Allow, AllowUnmetered, Decision, Deny, Edit, NeedsWholeBody, Reason
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.table import ENDPOINTS
from authz.limits.answer import LimitAnswer
from authz.limits.arriving_bodies import ArrivingBodies, TooMuchWork
from authz.limits.counting import Limits
from authz.metrics import Metrics
from authz.policy import MIN_PARTIAL_BODY_BYTES, RouteMisconfigured
from authz.protos.ext_authz_pb2 import CheckRequest, CheckResponse
from authz.request import PARTIAL_BODY_HEADER, AuthRequest
from authz.service import CheckService
from authz.transports import wire
from meter.clock import ManualClock
from meter.errors import ProviderUnavailable, SealBroken, StoreUnavailable
from meter.holds.hold import Refusal
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.keys.key_text import Pepper, mint
from meter.identity.last_use_store import PostgresCredentialUses
from meter.identity.principal import Principal
from meter.limits.limits import AppliesTo, CountedPer, LimitKind, LimitRule, Rates
from meter.pricing.prices import MAX_FACTOR_BPS, PriceTier
from meter.providers.report_tags import ReportTags
from meter.scopes import Scope
from meter.usage.endpoints import WITHOUT_TAG
from tests.fakes import (
    EPOCH,
    FakeCatalogue,
    FakeHolds,
    FakeJwts,
    FakeLimiter,
    FakeLimitRules,
    FakePrincipals,
    FakeProviderKeys,
    FakeRedisOfBodies,
    FakeRouting,
    model,
    price,
    principal,
    to_check,
)
from tests.splices import apply_edits

PEPPER = Pepper(bytes.fromhex("11" * 32))
KEY = mint().plain.reveal()
DEADLINE_S = 10.0
CHAT: dict[str, Any] = {"model": "acme/one", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class DeciderSetup:
    """A decider with everything around it."""

    clock: ManualClock
    holds: FakeHolds
    principals: FakePrincipals
    catalogue: FakeCatalogue
    keys: FakeProviderKeys
    snapshot: CatalogueSnapshot
    metrics: Metrics
    decider: Decider
    service: CheckService
    rules: FakeLimitRules
    limiter: FakeLimiter
    uses: LastUses

    def become(self, who: Principal) -> None:
        self.principals.known[PEPPER.digest(KEY)] = who
        self.clock.advance(1)

    async def decide(self, members: object = CHAT, **changes: Any) -> Decision:
        sent = replace(request(members), **changes)
        return await self.decider.decide(sent, self.clock.monotonic_s() + DEADLINE_S)

    async def deny(self, members: object = CHAT, **changes: Any) -> Deny:
        decision = await self.decide(members, **changes)
        assert isinstance(decision, Deny), decision
        return decision

    async def allow(self, members: object = CHAT, **changes: Any) -> Allow:
        decision = await self.decide(members, **changes)
        assert isinstance(decision, Allow), decision
        return decision


def request(members: object = CHAT) -> AuthRequest:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    headers = (("authorization", f"Bearer {KEY}"), ("content-type", "application/json"))
    return AuthRequest("POST", "/v1/chat/completions", headers, body)


@pytest.fixture
async def setup() -> DeciderSetup:
    clock, holds, keys = ManualClock(EPOCH), FakeHolds(), FakeProviderKeys()
    metrics = Metrics(CollectorRegistry())
    principals = FakePrincipals({PEPPER.digest(KEY): principal()})
    catalogue = FakeCatalogue(
        model("acme/one"),
        model("acme/two", completion_picos=9_000_000),
        model("acme/free", prompt_picos=0, completion_picos=0),
        model("acme/search", web_search_picos=4_000_000_000),
        model("acme/one:free", prompt_picos=0, completion_picos=0),
    )
    rules, jwts, limiter = FakeLimitRules(), FakeJwts(), FakeLimiter(clock)
    routing = FakeRouting()
    snapshot = CatalogueSnapshot(catalogue, keys, rules, routing, metrics)
    await snapshot.refresh()
    cache = PrincipalCache(principals, clock, metrics, 0.9)
    uses = LastUses()
    decider = Decider(
        Authenticator(CredentialResolver(PEPPER, cache, jwts)),
        snapshot,
        Limits(limiter, snapshot, metrics),
        holds,
        clock,
        metrics,
        Terms(floor_tokens=16, max_body_bytes=2**20),
        last_uses=uses,
        bodies=ArrivingBodies(FakeRedisOfBodies(), clock, metrics, 1.0, 2**20, 2**20),  # type: ignore[arg-type]
    )
    service = CheckService(decider, clock, metrics, DEADLINE_S)
    return DeciderSetup(
        clock, holds, principals, catalogue, keys, snapshot, metrics, decider, service, rules,
        limiter, uses,
    )  # fmt: skip


# The others take no messages.
CHATTING = [(path, one) for path, one in ENDPOINTS.items() if one.name not in WITHOUT_TAG]


@pytest.mark.parametrize(("path", "endpoint"), CHATTING)
async def test_allows_under_a_hold(setup: DeciderSetup, path: str, endpoint: Endpoint) -> None:
    allow = await setup.allow({"model": "acme/one"}, path=path)
    held = setup.holds.placed[allow.hold_id]
    assert allow.endpoint == held.endpoint == endpoint.name
    assert allow.model_id == held.model_id == "acme/one"
    assert allow.account_id == held.account_id == "account"
    assert allow.credential_id == held.credential_id == "credential"
    assert allow.provider_key.reveal() == "sk-or-planted"


@pytest.mark.parametrize("query", ["api-version=2026-01-01", "beta=true", "beta&api-version"])
async def test_the_version_of_an_api_may_be_named(setup: DeciderSetup, query: str) -> None:
    path = f"/v1/chat/completions?{query}"
    assert (await setup.allow(path=path)).hold_id in setup.holds.placed
    told = await answer(setup, to_check(replace(request(), path=path)))
    assert set(told.ok_response.query_parameters_to_remove) == {"api-version", "beta"}
    assert told.dynamic_metadata.fields["hold_id"].string_value
    plain = await answer(setup, to_check(request()))
    assert not plain.ok_response.query_parameters_to_remove


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": "/v1/keys"}, Reason.ROUTE_NOT_FOUND),
        ({"path": "/v1/chat/completions/"}, Reason.ROUTE_NOT_FOUND),
        ({"path": "/V1/chat/completions"}, Reason.ROUTE_NOT_FOUND),
        ({"path": "/v1/chat/completions%2f"}, Reason.ROUTE_NOT_FOUND),
        ({"method": "GET"}, Reason.ROUTE_NOT_FOUND),
        ({"method": "QUERY"}, Reason.ROUTE_NOT_FOUND),
        ({"path": "/v1/chat/completions?"}, Reason.QUERY_NOT_ALLOWED),
        ({"path": "/v1/chat/completions?models=x"}, Reason.QUERY_NOT_ALLOWED),
        ({"path": "/v1/chat/completions?beta=true&models=x"}, Reason.QUERY_NOT_ALLOWED),
        ({"path": "/v1/chat/completions?beta=true&"}, Reason.QUERY_NOT_ALLOWED),
        ({"headers": ()}, Reason.MISSING_API_KEY),
        ({"headers": (("x-api-key", "nonsense"),)}, Reason.INVALID_API_KEY),
        ({"headers": (("x-api-key", KEY),)}, Reason.UNSUPPORTED_CONTENT_TYPE),
        ({"body": b" " * (2**20 + 1)}, Reason.REQUEST_TOO_LARGE),
        ({"body": b"{"}, Reason.INVALID_JSON),
    ],
)
async def test_the_first_phases_refuse_without_a_hold(
    setup: DeciderSetup, changes: dict[str, Any], reason: Reason
) -> None:
    assert (await setup.deny(**changes)).reason is reason
    assert not setup.holds.placed


@pytest.mark.parametrize(
    ("members", "reason", "param"),
    [
        ({}, Reason.INVALID_VALUE, "model"),
        ({"model": ""}, Reason.INVALID_VALUE, "model"),
        ({"model": ["acme/one"]}, Reason.INVALID_VALUE, "model"),
        ({"model": "acme/none"}, Reason.MODEL_NOT_FOUND, "model"),
        ({"model": "acme/one:thinking"}, Reason.MODEL_NOT_FOUND, "model"),
        ({"model": "acme/one", "models": ["acme/none"]}, Reason.MODEL_NOT_FOUND, "models"),
        ({"model": "acme/one", "models": "acme/one"}, Reason.INVALID_VALUE, "models"),
        ({"model": "acme/one", "models": ["acme/one"] * 17}, Reason.INVALID_VALUE, "models"),
        ({"model": "acme/one", "models": [1]}, Reason.INVALID_VALUE, "models"),
        ({"model": "acme/one", "max_tokens": "9"}, Reason.INVALID_VALUE, "max_tokens"),
        ({"model": "acme/one", "preset": "x"}, Reason.COST_UNBOUNDED, "preset"),
        ({"model": "acme/one:online"}, Reason.COST_UNBOUNDED, "model"),
        ({"model": "acme/one", "plugins": [{"id": "web"}]}, Reason.COST_UNBOUNDED, "plugins"),
    ],
)
async def test_refuses_bodies_without_a_hold(
    setup: DeciderSetup, members: dict[str, Any], reason: Reason, param: str
) -> None:
    refused = await setup.deny(members)
    assert (refused.reason, refused.param) == (reason, param)
    assert not setup.holds.placed


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("acme/one:nitro", "acme/one"),
        ("acme/one:floor", "acme/one"),
        ("acme/one:free", "acme/one:free"),
        ("acme/one:free:nitro", "acme/one:free"),
        ("acme/search:online", "acme/search"),
    ],
)
async def test_routing_suffixes_mean_the_listed_model(
    setup: DeciderSetup, name: str, model_id: str
) -> None:
    assert (await setup.allow({"model": name})).model_id == model_id


async def test_the_cost_of_a_name_of_suffixes_grows_with_its_length_only(
    setup: DeciderSetup,
) -> None:
    async def cpu_s(suffixes: int) -> float:
        began_s = time.process_time()
        denied = await setup.deny({"model": "acme/one" + ":nitro" * suffixes})
        assert denied.reason is Reason.MODEL_NOT_FOUND
        return time.process_time() - began_s

    short_s = statistics.median([await cpu_s(10_000) for _ in range(5)])
    # Ten times as long; a hundred times as dear where the cost is quadratic.
    assert await cpu_s(100_000) < 40 * short_s


@pytest.mark.parametrize(
    ("patterns", "members", "is_allowed"),
    [
        (None, {"model": "acme/two"}, True),
        ({"acme/one"}, {"model": "acme/one"}, True),
        ({"acme/one"}, {"model": "acme/one:nitro"}, True),
        ({"acme/*"}, {"model": "acme/two"}, True),
        ({"other/*", "acme/t?o"}, {"model": "acme/two"}, True),
        ({"acme/one"}, {"model": "acme/two"}, False),
        ({"acme/one"}, {"model": "acme/one:free"}, False),
        ({"acme/one"}, {"model": "acme/one", "models": ["acme/two"]}, False),
        (set(), {"model": "acme/one"}, False),
    ],
)
async def test_keys_may_be_limited_to_models(
    setup: DeciderSetup, patterns: set[str] | None, members: dict[str, Any], is_allowed: bool
) -> None:
    setup.become(principal(None if patterns is None else frozenset(patterns)))
    decision = await setup.decide(members)
    if is_allowed:
        assert isinstance(decision, Allow)
    else:
        assert isinstance(decision, Deny)
        assert decision.reason is Reason.MODEL_NOT_ALLOWED


async def test_the_dearest_fallback_bounds_the_hold(setup: DeciderSetup) -> None:
    allow = await setup.allow({**CHAT, "models": ["acme/two"], "max_tokens": 100})
    held = setup.holds.placed[allow.hold_id]
    assert held.estimate.per_token_picos == 9_000_000
    assert allow.model_id == "acme/one"


async def test_writes_the_affordable_limit_into_a_body_that_names_none(setup: DeciderSetup) -> None:
    first = await setup.allow()
    bound = setup.holds.placed[first.hold_id].estimate
    await setup.holds.release([first.hold_id])
    setup.holds.available_picos = bound.fixed_picos + 100 * bound.per_token_picos + 1
    allow = await setup.allow()
    edited = json.loads(apply_edits(request().body, allow.edits))
    assert edited.pop("provider")
    assert edited == {**CHAT, "max_tokens": 100}
    await setup.holds.release([allow.hold_id])
    assert "max_tokens" not in (await setup.allow({**CHAT, "max_tokens": 50})).edits[0].insert


async def test_a_written_limit_leaves_room_for_the_prompt(setup: DeciderSetup) -> None:
    setup.catalogue.models["acme/one"] = model("acme/one", context=8_000, longest=8_000)
    await setup.snapshot.refresh()
    members = {**CHAT, "messages": [{"role": "user", "content": "x" * 1_000}]}
    allow = await setup.allow(members)
    limit = json.loads(apply_edits(request(members).body, allow.edits))["max_tokens"]
    assert 4_000 <= limit < 7_000


async def test_no_limit_is_written_for_free_replies_and_embeddings(setup: DeciderSetup) -> None:
    for members, path in (
        ({"model": "acme/free"}, "/v1/chat/completions"),
        ({"model": "acme/one"}, "/v1/embeddings"),
    ):
        allow = await setup.allow(members, path=path)
        edited = json.loads(apply_edits(request(members).body, allow.edits))
        assert edited.keys() == {"model", "provider"}


async def test_the_provider_is_told_the_prices_of_the_hold(setup: DeciderSetup) -> None:
    allow = await setup.allow({**CHAT, "max_tokens": 9})
    edited = json.loads(apply_edits(request({**CHAT, "max_tokens": 9}).body, allow.edits))
    limits = edited["provider"]["max_price"]
    assert limits.keys() == {"prompt", "completion", "request"}
    assert 1 <= limits["prompt"] < 1.00001
    assert 2 <= limits["completion"] < 2.00001
    assert limits["request"] == 0


async def test_the_provider_is_told_the_dearest_price_of_all_fallbacks(setup: DeciderSetup) -> None:
    members = {**CHAT, "models": ["acme/two"], "max_tokens": 9, "provider": {"sort": "price"}}
    allow = await setup.allow(members)
    edited = json.loads(apply_edits(request(members).body, allow.edits))
    assert edited["provider"]["sort"] == "price"
    assert 9 <= edited["provider"]["max_price"]["completion"] < 9.0001


async def test_the_dearest_reachable_tier_bounds_the_hold_and_the_provider(
    setup: DeciderSetup,
) -> None:
    base = price("acme/one")
    tier = PriceTier(2_000, replace(base, prompt_picos=3_000_000, completion_picos=5_000_000))
    setup.catalogue.models["acme/one"] = replace(
        model("acme/one"), price=replace(base, tiers=(tier,))
    )
    await setup.snapshot.refresh()
    for text, prompt_usd, completion_picos in (("x", 1, 2_000_000), ("x" * 2_000, 3, 5_000_000)):
        members = {"model": "acme/one", "max_tokens": 9, "messages": [{"content": text}]}
        allow = await setup.allow(members)
        bound = setup.holds.placed[allow.hold_id].estimate
        assert bound.per_token_picos == completion_picos
        edited = json.loads(apply_edits(request(members).body, allow.edits))
        assert int(edited["provider"]["max_price"]["prompt"]) == prompt_usd


async def test_a_model_that_searches_unasked_is_held_with_its_searches(setup: DeciderSetup) -> None:
    listed = model("acme/sonar", web_search_picos=5 * 10**9)
    setup.catalogue.models["acme/sonar"] = replace(listed, unasked_searches=10)
    await setup.snapshot.refresh()
    allow = await setup.allow({"model": "acme/sonar", "max_tokens": 1, "n": 2})
    bound = setup.holds.placed[allow.hold_id].estimate
    # Two replies, each with ten searches and a context full of what they found.
    assert bound.fixed_picos == 2 * (10 * 5 * 10**9 + 128_000 * 1_000_000)


async def test_measured_excess_raises_the_hold_of_its_class_alone(setup: DeciderSetup) -> None:
    members = {**CHAT, "max_tokens": 9}
    plain = setup.holds.placed[(await setup.allow(members)).hold_id].estimate
    setup.catalogue.models["acme/one"] = replace(
        model("acme/one"), raised_bps={"chat_completions": 25_000}
    )
    await setup.snapshot.refresh()
    for asked in (members, {**members, "model": "acme/free", "models": ["acme/one"]}):
        raised = setup.holds.placed[(await setup.allow(asked)).hold_id].estimate
        assert raised.fixed_picos >= 2.5 * plain.fixed_picos
        assert raised.per_token_picos == 2.5 * plain.per_token_picos
    other = await setup.allow({**members, "prompt": "x"}, path="/v1/completions")
    assert setup.holds.placed[other.hold_id].estimate.per_token_picos == plain.per_token_picos


async def test_a_class_that_exceeds_its_holds_a_hundredfold_is_refused(setup: DeciderSetup) -> None:
    setup.catalogue.models["acme/one"] = replace(
        model("acme/one"), raised_bps={"chat_completions": MAX_FACTOR_BPS}
    )
    await setup.snapshot.refresh()
    refused = await setup.deny({**CHAT, "max_tokens": 9})
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, "model")


async def test_thinking_with_a_price_of_its_own_is_held_beyond_the_limit(
    setup: DeciderSetup,
) -> None:
    setup.catalogue.models["acme/one"] = model("acme/one", longest=4_000, reasoning_picos=10**6)
    await setup.snapshot.refresh()
    fixed = {}
    for budget in (None, 50):
        members = {**CHAT, "max_tokens": 9}
        if budget is not None:
            members |= {"reasoning": {"max_tokens": budget}}
        allow = await setup.allow(members)
        fixed[budget] = setup.holds.placed[allow.hold_id].estimate.fixed_picos
    assert fixed[None] > 4_000 * 2_000_000 > fixed[50]


@pytest.mark.parametrize(
    ("members", "param", "listed"),
    [
        ({"modalities": ["image", "text"]}, "modalities", "image_output_picos"),
        ({"modalities": ["text", "audio"]}, "modalities", "audio_output_picos"),
        (
            {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]},
            "messages.content",
            "audio_picos",
        ),
        ({"cache_control": {"ttl": "1h"}}, "cache_control", "cache_write_1h_picos"),
    ],
)
async def test_what_has_a_price_of_its_own_is_refused_without_and_held_with_one(
    setup: DeciderSetup, members: dict[str, object], param: str, listed: str
) -> None:
    setup.holds.available_picos = 10**14
    asked = {**CHAT, "max_tokens": 9, **members}
    refused = await setup.deny(asked)
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, param)
    plain = setup.holds.placed[(await setup.allow({**CHAT, "max_tokens": 9})).hold_id].estimate
    setup.catalogue.models["acme/one"] = model("acme/one", **{listed: 10**7})
    await setup.snapshot.refresh()
    held = setup.holds.placed[(await setup.allow(asked)).hold_id].estimate
    assert held.fixed_picos + 9 * held.per_token_picos > 5 * (
        plain.fixed_picos + 9 * plain.per_token_picos
    )


async def test_says_what_is_needed_and_what_is_there(setup: DeciderSetup) -> None:
    setup.holds.available_picos = 4_000_000_000
    refused = await setup.deny({**CHAT, "max_tokens": 100_000})
    assert refused.reason is Reason.INSUFFICIENT_CREDITS
    assert "may cost up to 0.20" in refused.message
    assert "0.004 USD is available" in refused.message
    assert "Add credit, or lower max_tokens" in refused.message


async def test_says_where_credit_is_sold(setup: DeciderSetup) -> None:
    sold = replace(setup.decider._terms, credit_url="https://gateway.example/buy")
    setup.decider._terms = sold
    setup.holds.available_picos = 4_000_000_000
    refused = await setup.deny({**CHAT, "max_tokens": 100_000})
    assert "Buy credit at https://gateway.example/buy, or lower max_tokens" in refused.message


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal.CREDENTIAL_ENDED, Reason.INVALID_API_KEY),
        (Refusal.ACCOUNT_SUSPENDED, Reason.ACCOUNT_SUSPENDED),
    ],
)
async def test_the_hold_judges_the_credential_again(
    setup: DeciderSetup, refusal: Refusal, reason: Reason
) -> None:
    unknown = await setup.deny(headers=(("x-api-key", mint().plain.reveal()),))
    setup.holds.refusal = refusal
    refused = await setup.deny()
    assert refused.reason is reason
    if reason is Reason.INVALID_API_KEY:
        assert refused == unknown


async def test_a_suspended_account_is_refused(setup: DeciderSetup) -> None:
    setup.become(principal(is_suspended=True))
    assert (await setup.deny()).reason is Reason.ACCOUNT_SUSPENDED


async def test_limits_requests(setup: DeciderSetup) -> None:
    setup.become(principal(requests_per_minute=2))
    remaining = [[status.remaining for status in (await setup.allow()).limits] for _ in range(2)]
    assert remaining == [[1], [0]]
    refused = await setup.deny()
    assert refused.reason is Reason.RATE_LIMIT_EXCEEDED
    assert refused.retry_after_s == pytest.approx(60)
    assert "2 requests a minute for this account" in refused.message
    setup.clock.advance(60)
    await setup.allow()


async def test_counts_the_likely_prompt_in_every_bucket_of_tokens(setup: DeciderSetup) -> None:
    setup.become(replace(principal(), key_rates=Rates(9, 900), account_rates=Rates(10, 1_000)))
    setup.rules.rules = (
        rule("all", AppliesTo.EVERYONE, None, "acme/*", tokens=5_000),
        rule("other", AppliesTo.EVERYONE, None, "other/*", tokens=1),
        rule("plan", AppliesTo.PLAN, "standard", None, requests=7, per=CountedPer.ACCOUNT),
        rule("seen", AppliesTo.KEY, "credential", "acme/two", requests=3, is_shadow=True),
    )
    await setup.snapshot.refresh()
    allow = await setup.allow({**CHAT, "models": ["acme/two"]})
    assert {(t.limit.bucket, t.limit.kind.value) for t in setup.limiter.uses} == {
        ("key:credential", "requests"),
        ("key:credential", "tokens"),
        ("account:account", "requests"),
        ("account:account", "tokens"),
        ("rule:all", "tokens"),
        ("rule:plan:account:account", "requests"),
        ("rule:seen", "requests"),
    }
    counted = setup.holds.placed[allow.hold_id].counted
    assert set(counted.buckets) == {"key:credential", "account:account", "rule:all"}
    taken = {t.amount for t in setup.limiter.uses if t.limit.kind is LimitKind.TOKENS}
    assert taken == {counted.tokens}
    assert all(
        t.local_amount is not None and t.local_amount > t.amount
        for t in setup.limiter.uses
        if t.limit.kind is LimitKind.TOKENS
    )


async def test_what_is_fetched_from_elsewhere_counts_as_the_context_at_most(
    setup: DeciderSetup,
) -> None:
    setup.become(replace(principal(), account_rates=Rates(None, 100_000)))
    await setup.snapshot.refresh()
    video = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}
    allow = await setup.allow({**CHAT, "messages": [{"role": "user", "content": [video]}]})
    context = setup.snapshot.models[CHAT["model"]].context_length
    assert setup.holds.placed[allow.hold_id].counted.tokens == context // 4


def rule(
    rule_id: str,
    applies_to: AppliesTo,
    applies_id: str | None,
    pattern: str | None,
    requests: int | None = None,
    tokens: int | None = None,
    per: CountedPer = CountedPer.RULE,
    is_shadow: bool = False,
) -> LimitRule:
    return LimitRule(rule_id, applies_to, applies_id, per, pattern, requests, tokens, is_shadow)


@pytest.mark.parametrize(
    ("who", "changes", "reason"),
    [
        ({"ends_at": EPOCH}, {}, Reason.INVALID_API_KEY),
        ({"scopes": frozenset({Scope.USAGE_READ})}, {}, Reason.INSUFFICIENT_SCOPE),
        ({"networks": (ip_network("10.0.0.0/8"),)}, {"peer": "192.0.2.1"}, "address"),
        ({"networks": (ip_network("10.0.0.0/8"),)}, {"peer": ""}, "address"),
        ({"networks": ()}, {"peer": "10.1.1.1"}, "address"),
        ({"model_lists": (frozenset({"acme/*"}), frozenset({"acme/two"}))}, {}, "model"),
    ],
)
async def test_what_a_principal_may_not(
    setup: DeciderSetup, who: dict[str, Any], changes: dict[str, Any], reason: Reason | str
) -> None:
    named = {"address": Reason.ADDRESS_NOT_ALLOWED, "model": Reason.MODEL_NOT_ALLOWED}
    expected = named[reason] if isinstance(reason, str) else reason
    setup.become(replace(principal(), **who))
    assert (await setup.deny(**changes)).reason is expected
    assert not setup.holds.placed


async def test_a_network_lets_its_own_in(setup: DeciderSetup) -> None:
    setup.become(replace(principal(), networks=(ip_network("10.0.0.0/8"),)))
    await setup.allow(peer="10.1.1.1")


@pytest.mark.parametrize(
    ("refusal", "reason", "status"),
    [
        (Refusal.BUDGET_EXCEEDED, Reason.BUDGET_EXCEEDED, 402),
        (Refusal.TOO_MANY_CONCURRENT, Reason.TOO_MANY_CONCURRENT, 429),
    ],
)
async def test_what_the_store_refuses_besides(
    setup: DeciderSetup, refusal: Refusal, reason: Reason, status: int
) -> None:
    setup.holds.refusal = refusal
    told = await setup.deny()
    assert (told.reason, told.reason.value.status) == (reason, status)
    assert (told.retry_after_s is not None) == (status == 429)


async def test_without_metering_nothing_is_held_and_no_key_given_out(setup: DeciderSetup) -> None:
    extensions = {"metering": "off", "scope": "models:read"}
    sent = {"extensions": extensions, "method": "GET", "path": "/tools?page=1", "body": b""}
    decision = await setup.decide(**sent)
    assert isinstance(decision, AllowUnmetered)
    assert (decision.account_id, decision.credential_id) == ("account", "credential")
    assert not setup.holds.placed
    told = CheckResponse.FromString(wire.from_decision(decision))
    assert b"planted" not in told.SerializeToString()
    assert set(told.ok_response.headers_to_remove) == {"authorization", "x-api-key"}
    said = {h.header.key: h.header.value for h in told.ok_response.headers}
    assert said["x-tollkeeper-account"] == "account"
    setup.become(replace(principal(), scopes=frozenset({Scope.INFERENCE})))
    assert (await setup.deny(**sent)).reason is Reason.INSUFFICIENT_SCOPE


@pytest.mark.parametrize(
    "extensions",
    [
        {"metering": "of"},
        {"meterin": "off"},
        {"scope": "everything"},
        {"scope": "models:read"},
        {"account-from": "x-account"},
        {"metering": ""},
        {"partial-body": "64k"},
        {"partial-body": "-1"},
        {"partial-body": "16383"},
        {"partial-body": "1048577"},
    ],
)
async def test_a_misspelt_route_lets_nobody_through(
    setup: DeciderSetup, extensions: dict[str, str]
) -> None:
    with pytest.raises(RouteMisconfigured):
        await setup.decide(extensions=extensions)
    told = (await answer(setup, to_check(replace(request(), extensions=extensions)))).error_response
    assert told.status.code == 503


FIRST_CHECK_BYTES = MIN_PARTIAL_BODY_BYTES
FIRST_CHECK = {"partial-body": str(FIRST_CHECK_BYTES)}
PART = b" " * FIRST_CHECK_BYTES


async def test_a_body_that_fits_the_first_check_is_decided_by_it(setup: DeciderSetup) -> None:
    body = json.dumps(CHAT).encode()
    whole = body + b" " * (FIRST_CHECK_BYTES - 1 - len(body))
    assert (await setup.allow(body=whole, extensions=FIRST_CHECK)).hold_id in setup.holds.placed


@pytest.mark.parametrize("more", [0, 1, 5000])
@pytest.mark.parametrize("said", ["true", "false", None])
async def test_a_longer_body_is_not_decided_by_a_part_of_it(
    setup: DeciderSetup, more: int, said: str | None
) -> None:
    """A part that is valid JSON is no more: Envoy may not know yet that more comes."""
    body = json.dumps(CHAT).encode().ljust(FIRST_CHECK_BYTES + more)
    partial = [] if said is None else [(PARTIAL_BODY_HEADER, said)]
    sent = replace(request(body), extensions=FIRST_CHECK)
    sent = replace(sent, headers=(*sent.headers, *partial))
    assert (
        await setup.decide(body, headers=sent.headers, extensions=FIRST_CHECK) == NeedsWholeBody()
    )
    assert not setup.holds.placed
    told = await answer(setup, to_check(sent))
    assert told.status.code == 0
    assert not told.ok_response.headers
    assert dict(told.dynamic_metadata) == {"needs_whole_body": True}


async def test_a_part_of_a_body_is_judged_by_all_that_needs_no_body(setup: DeciderSetup) -> None:
    async def refused(**changes: Any) -> Reason:
        return (await setup.deny(PART, extensions=FIRST_CHECK, **changes)).reason

    assert await refused(path="/v1/keys") is Reason.ROUTE_NOT_FOUND
    assert await refused(headers=()) is Reason.MISSING_API_KEY
    assert await refused(headers=(("x-api-key", "nonsense"),)) is Reason.INVALID_API_KEY
    setup.become(principal(is_suspended=True))
    assert await refused() is Reason.ACCOUNT_SUSPENDED


async def test_whoever_cannot_pay_sends_no_large_body(setup: DeciderSetup) -> None:
    setup.holds.available_picos = -1
    denied = await setup.deny(PART, extensions=FIRST_CHECK)
    assert denied.reason is Reason.INSUFFICIENT_CREDITS
    assert "-0.000000000001 USD is available" in denied.message
    # A free model costs nothing: the catalogue has one.
    setup.holds.available_picos = 0
    assert await setup.decide(PART, extensions=FIRST_CHECK) == NeedsWholeBody()
    setup.catalogue.models = {"acme/one": setup.catalogue.models["acme/one"]}
    await setup.snapshot.refresh()
    assert isinstance(await setup.decide(PART, extensions=FIRST_CHECK), Deny)
    setup.holds.available_picos = 10**12
    assert await setup.decide(PART, extensions=FIRST_CHECK) == NeedsWholeBody()


REQUEST_ID = "00000000-0000-4000-8000-000000000001"


async def test_large_bodies_have_room_until_the_second_check(setup: DeciderSetup) -> None:
    length = ("content-length", str(2**19 + 1))
    headers = (*request().headers, length, ("x-request-id", REQUEST_ID))
    other = (*request().headers, length, ("x-request-id", REQUEST_ID[:-1] + "2"))
    first = {"members": PART, "extensions": FIRST_CHECK}
    assert await setup.decide(**first, headers=headers) == NeedsWholeBody()
    denied = await setup.deny(**first, headers=other)
    assert (denied.reason, denied.retry_after_s) == (Reason.TOO_MANY_CONCURRENT, 1.0)
    whole = json.dumps(CHAT).encode().ljust(FIRST_CHECK_BYTES)
    await setup.allow(whole, headers=headers)
    assert await setup.decide(**first, headers=other) == NeedsWholeBody()
    # A length that is not announced counts as the most that a body may have.
    refused = await setup.deny(**first, headers=(*request().headers, headers[-1]))
    assert refused.reason is Reason.TOO_MANY_CONCURRENT


async def test_an_account_whose_bodies_took_too_long_sends_no_more_of_them(
    setup: DeciderSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take(*_: object) -> TooMuchWork:
        return TooMuchWork(2.5)

    monkeypatch.setattr(ArrivingBodies, "take", take)
    headers = (*request().headers, ("x-request-id", REQUEST_ID))
    denied = await setup.deny(PART, extensions=FIRST_CHECK, headers=headers)
    assert (denied.reason, denied.retry_after_s) == (Reason.RATE_LIMIT_EXCEEDED, 2.5)
    # A request that fits the first check takes no such time.
    await setup.allow(extensions=FIRST_CHECK)


@pytest.mark.parametrize("body", [b"{", json.dumps({**CHAT, "model": "none"}).encode()])
async def test_a_large_body_that_is_refused_gives_its_room_back(
    setup: DeciderSetup, body: bytes
) -> None:
    length = ("content-length", str(2**19 + 1))
    headers = (*request().headers, length, ("x-request-id", REQUEST_ID))
    other = (*request().headers, length, ("x-request-id", REQUEST_ID[:-1] + "2"))
    first = {"members": PART, "extensions": FIRST_CHECK}
    assert await setup.decide(**first, headers=headers) == NeedsWholeBody()
    await setup.deny(body.ljust(FIRST_CHECK_BYTES), headers=headers)
    assert await setup.decide(**first, headers=other) == NeedsWholeBody()


async def test_credit_that_cannot_be_known_is_an_outage(setup: DeciderSetup) -> None:
    setup.holds.is_away = True
    with pytest.raises(StoreUnavailable):
        await setup.decide(PART, extensions=FIRST_CHECK)


async def test_a_part_without_a_second_check_lets_nobody_through(setup: DeciderSetup) -> None:
    with pytest.raises(RouteMisconfigured, match="no second check"):
        await setup.decide(
            headers=(*request().headers, (PARTIAL_BODY_HEADER, "true")),
        )


async def test_a_route_without_metering_needs_no_body(setup: DeciderSetup) -> None:
    extensions = {"metering": "off", **FIRST_CHECK}
    decision = await setup.decide(PART, extensions=extensions)
    assert isinstance(decision, AllowUnmetered)


async def test_a_judgement_of_a_second_ago_is_none(setup: DeciderSetup) -> None:
    setup.holds.gate = asyncio.Event()
    deciding = asyncio.create_task(setup.decide())
    await setup.holds.reached.wait()
    setup.clock.advance(0.95)
    setup.holds.gate.set()
    with pytest.raises(DeadlinePassed):
        await deciding
    assert setup.holds.released == list(setup.holds.placed)


async def test_who_ended_while_the_hold_took_long_is_refused(setup: DeciderSetup) -> None:
    """The hold judges credentials, not their secrets: those are asked about again."""
    await setup.allow()
    setup.clock.advance(0.85)
    setup.holds.gate = asyncio.Event()
    setup.holds.reached.clear()
    deciding = asyncio.create_task(setup.deny())
    await setup.holds.reached.wait()
    setup.principals.known.clear()
    setup.clock.advance(0.1)
    setup.holds.gate.set()
    assert (await deciding).reason is Reason.INVALID_API_KEY
    assert setup.holds.released == list(setup.holds.placed)[1:]


async def test_an_outage_while_asking_again_leaves_no_hold(setup: DeciderSetup) -> None:
    setup.holds.gate = asyncio.Event()
    deciding = asyncio.create_task(setup.decide())
    await setup.holds.reached.wait()
    setup.principals.is_away = True
    setup.clock.advance(0.905)
    setup.holds.gate.set()
    with pytest.raises(StoreUnavailable):
        await deciding
    assert setup.holds.released == list(setup.holds.placed)


async def test_a_fault_of_the_edits_leaves_no_hold(
    setup: DeciderSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> tuple[Edit, ...]:
        raise ValueError("a fault")

    path = request().path
    monkeypatch.setitem(ENDPOINTS, path, replace(ENDPOINTS[path], edits=faulty))
    with pytest.raises(ValueError, match="a fault"):
        await setup.decide()
    assert setup.holds.released == list(setup.holds.placed)


async def test_an_unmetered_answer_asks_again_after_a_pause(setup: DeciderSetup) -> None:
    setup.become(principal(requests_per_minute=5))
    gone = asyncio.Event()

    async def sleep_while_limits_are_asked(uses: Any) -> Any:
        setup.principals.known.clear()
        setup.clock.advance(1)
        gone.set()
        return LimitAnswer((), None, None, ())

    setup.limiter.take = sleep_while_limits_are_asked  # type: ignore[method-assign]
    assert (await setup.deny(extensions={"metering": "off"})).reason is Reason.INVALID_API_KEY
    assert gone.is_set()


async def test_uses_are_noted_for_what_was_let_in(setup: DeciderSetup) -> None:
    await setup.allow()
    setup.holds.refusal = Refusal.INSUFFICIENT
    setup.clock.advance(5)
    await setup.deny()
    written: dict[str, datetime] = {}

    class Kept(PostgresCredentialUses):
        def __init__(self) -> None:
            """Connect to nothing."""

        async def note(self, latest: Mapping[str, datetime]) -> None:
            if setup.holds.is_away:
                raise StoreUnavailable("away")
            written.update(latest)

    setup.holds.is_away = True
    with pytest.raises(StoreUnavailable):
        await setup.uses.write(Kept())
    assert not written
    setup.holds.is_away = False
    await setup.uses.write(Kept())
    assert written == {"credential": EPOCH}


async def test_outages_are_exceptions(setup: DeciderSetup) -> None:
    setup.holds.is_away = True
    with pytest.raises(StoreUnavailable):
        await setup.decide()
    setup.principals.is_away = True
    setup.clock.advance(1)
    with pytest.raises(StoreUnavailable):
        await setup.decide()


async def test_no_hold_without_a_provider_key(setup: DeciderSetup) -> None:
    setup.keys.failure = SealBroken("another master key")
    await setup.snapshot.refresh()
    assert setup.snapshot.key_state.value == KeyState.SEALED.value
    with pytest.raises(ProviderUnavailable):
        await setup.decide()
    setup.keys.failure, setup.keys.key = None, None
    await setup.snapshot.refresh()
    assert setup.snapshot.key_state.value == KeyState.MISSING.value
    with pytest.raises(ProviderUnavailable):
        await setup.decide()
    assert not setup.holds.placed


async def test_the_catalogue_stays_through_an_outage(setup: DeciderSetup) -> None:
    setup.catalogue.is_away = True
    with pytest.raises(StoreUnavailable):
        await setup.snapshot.refresh()
    await setup.allow()


async def test_nothing_is_decided_before_the_catalogue_is_loaded() -> None:
    metrics = Metrics(CollectorRegistry())
    snapshot = CatalogueSnapshot(
        FakeCatalogue(), FakeProviderKeys(), FakeLimitRules(), FakeRouting(), metrics
    )
    assert not snapshot.is_loaded
    with pytest.raises(StoreUnavailable):
        _ = snapshot.models


async def test_a_hold_that_comes_too_late_is_given_back(setup: DeciderSetup) -> None:
    setup.holds.gate = asyncio.Event()
    deciding = asyncio.create_task(setup.decide())
    await setup.holds.reached.wait()
    setup.clock.advance(DEADLINE_S + 1)
    setup.holds.gate.set()
    with pytest.raises(DeadlinePassed):
        await deciding
    assert setup.holds.released == list(setup.holds.placed)
    assert setup.holds.released


async def test_a_check_that_nobody_waits_for_leaves_no_hold(setup: DeciderSetup) -> None:
    setup.holds.gate = asyncio.Event()
    deciding = asyncio.create_task(setup.decide())
    await setup.holds.reached.wait()
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    assert len(setup.holds.released) == 1


async def answer(setup: DeciderSetup, payload: bytes) -> CheckResponse:
    return CheckResponse.FromString((await setup.service.check(payload)).payload)


async def test_an_allowance_on_the_wire(setup: DeciderSetup) -> None:
    setup.become(principal(requests_per_minute=100))
    told = await answer(setup, to_check(request()))
    (hold_id,) = setup.holds.placed
    fields = told.dynamic_metadata.fields
    names = ("hold_id", "account_id", "credential_id", "model", "endpoint")
    assert [fields[name].string_value for name in names] == [
        *(hold_id.hex, "account", "credential", "acme/one", "chat_completions")
    ]
    assert fields["is_streaming"].bool_value is False
    offset, remove, size, insert = fields["edits"].string_value.split(":", 3)
    assert (offset, remove, int(size)) == ("1", "0", len(insert) - 1)
    assert insert.startswith('"max_tokens":4096,"provider":{"max_price":{')
    assert told.status.code == 0
    (header,) = told.ok_response.headers
    assert (header.header.key, header.header.value) == ("authorization", "Bearer sk-or-planted")
    assert header.append_action == 2
    assert list(told.ok_response.headers_to_remove) == [
        "x-api-key",
        "cookie",
        "x-tollkeeper-account",
    ]
    added = {h.header.key: h.header.value for h in told.ok_response.response_headers_to_add}
    assert added["x-ratelimit-limit-requests"] == "100"
    assert added["x-ratelimit-remaining-requests"] == "99"


@pytest.mark.parametrize(("stream", "is_streaming"), [(True, True), (False, False), (1, False)])
async def test_an_allowance_says_whether_the_reply_streams(
    setup: DeciderSetup, stream: object, is_streaming: bool
) -> None:
    told = await answer(setup, to_check(request({**CHAT, "stream": stream})))
    field = told.dynamic_metadata.fields["is_streaming"]
    assert field.WhichOneof("kind") == "bool_value"
    assert field.bool_value is is_streaming


async def test_an_allowance_that_is_taken_back_releases_its_hold(setup: DeciderSetup) -> None:
    found = await setup.service.check(to_check(request()))
    assert found.take_back is not None and not setup.holds.released
    found.take_back()
    assert setup.holds.released == list(setup.holds.placed)
    refused = await setup.service.check(to_check(request({"model": "no/such"})))
    assert refused.take_back is None


async def test_an_empty_catalogue_is_an_outage_and_not_a_missing_model(setup: DeciderSetup) -> None:
    setup.catalogue.models.clear()
    await setup.snapshot.refresh()
    assert not setup.snapshot.is_loaded
    told = await answer(setup, to_check(request()))
    assert told.error_response.status.code == 503
    assert "unavailable" in told.error_response.body


async def test_the_first_model_is_waited_for_impatiently(setup: DeciderSetup) -> None:
    listed = dict(setup.catalogue.models)
    setup.catalogue.models.clear()
    await setup.snapshot.refresh()
    refreshing = asyncio.create_task(setup.snapshot.keep_fresh(interval_s=60))
    await asyncio.sleep(0.02)
    setup.catalogue.models.update(listed)
    # Sooner than after the interval of 60 s, or this fails.
    async with asyncio.timeout(30):
        while not setup.snapshot.is_loaded:  # noqa: ASYNC110 - the refresh tells nobody.
            await asyncio.sleep(0.01)
    refreshing.cancel()


async def test_a_refusal_on_the_wire(setup: DeciderSetup) -> None:
    told = await answer(setup, to_check(request({"model": "acme/none"})))
    denied = told.denied_response
    assert told.status.code == 7
    assert denied.status.code == 404
    assert json.loads(denied.body) == {
        "error": {
            "message": "The model 'acme/none' does not exist. Did you mean 'acme/one'?",
            "type": "not_found_error",
            "code": "model_not_found",
            "param": "model",
        }
    }
    assert [(h.header.key, h.header.value) for h in denied.headers] == [
        ("content-type", "application/json")
    ]


async def test_a_rate_limit_on_the_wire(setup: DeciderSetup) -> None:
    setup.become(principal(requests_per_minute=1))
    await setup.allow()
    denied = (await answer(setup, to_check(request()))).denied_response
    headers = {h.header.key: h.header.value for h in denied.headers}
    assert denied.status.code == 429
    assert headers["retry-after"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("payload", [b"", b"\xff\xff", b"\x0a\x00"])
async def test_a_malformed_check_is_a_refusal(setup: DeciderSetup, payload: bytes) -> None:
    assert (await answer(setup, payload)).denied_response.status.code == 400


async def test_outages_on_the_wire(setup: DeciderSetup) -> None:
    setup.holds.is_away = True
    told = (await answer(setup, to_check(request()))).error_response
    assert told.status.code == 503
    assert json.loads(told.body)["error"]["code"] == "unavailable"
    headers = {h.header.key: h.header.value for h in told.headers}
    assert headers == {"content-type": "application/json", "retry-after": "1"}
    setup.keys.key = None
    await setup.snapshot.refresh()
    told = (await answer(setup, to_check(request()))).error_response
    assert json.loads(told.body)["error"]["code"] == "provider_unavailable"


async def test_a_fault_is_an_outage_and_not_a_way_through(
    setup: DeciderSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup.holds, "place", None)
    assert (await answer(setup, to_check(request()))).error_response.status.code == 503


async def test_a_decision_that_takes_too_long_is_an_outage(setup: DeciderSetup) -> None:
    metrics = Metrics(CollectorRegistry())
    # Long enough for the check to reach the gate on a busy machine.
    hurried = CheckService(setup.decider, setup.clock, metrics, deadline_after_s=1.0)
    setup.holds.gate = asyncio.Event()
    told = CheckResponse.FromString((await hurried.check(to_check(request()))).payload)
    assert told.error_response.status.code == 503
    assert len(setup.holds.released) == 1


async def test_joined_headers_without_raw_ones_are_a_conflict(setup: DeciderSetup) -> None:
    checked = CheckRequest.FromString(to_check(request()))
    http = checked.attributes.request.http
    http.ClearField("header_map")
    http.headers["content-type"] = "application/json"
    http.headers["authorization"] = f"Bearer {KEY},Bearer {KEY}"
    told = await answer(setup, checked.SerializeToString())
    assert json.loads(told.denied_response.body)["error"]["code"] == "conflicting_credentials"


async def test_secrets_do_not_show(setup: DeciderSetup) -> None:
    allow = await setup.allow()
    for shown in (repr(request()), str(request()), repr(allow), str(allow)):
        assert KEY not in shown
        assert "planted" not in shown


TAGS = ReportTags.from_master_key(b"m" * 32)


def tagging(setup: DeciderSetup) -> DeciderSetup:
    """The same setup where the provider reports about requests."""
    cache = PrincipalCache(setup.principals, setup.clock, setup.metrics, 0.9)
    decider = Decider(
        Authenticator(CredentialResolver(PEPPER, cache, FakeJwts())),
        setup.snapshot,
        Limits(setup.limiter, setup.snapshot, setup.metrics),
        setup.holds,
        setup.clock,
        setup.metrics,
        Terms(floor_tokens=16, max_body_bytes=2**20),
        TAGS.tag,
    )
    return replace(setup, decider=decider)


async def test_without_provider_reports_no_tag_is_written(setup: DeciderSetup) -> None:
    (edit,) = (await setup.allow({**CHAT, "max_tokens": 9})).edits
    assert "trace" not in edit.insert


async def test_a_tag_leads_back_to_the_hold_and_does_not_name_it(setup: DeciderSetup) -> None:
    sent = request({**CHAT, "max_tokens": 9})
    allow = await tagging(setup).allow({**CHAT, "max_tokens": 9})
    edited = apply_edits(sent.body, allow.edits)
    assert TAGS.hold_id(json.loads(edited)["trace"]["trace_id"]) == allow.hold_id
    assert allow.hold_id.hex not in edited.decode()
    assert str(allow.hold_id) not in edited.decode()


async def test_limit_and_tag_are_written_together(setup: DeciderSetup) -> None:
    members = {"user": "größe 🙂", **CHAT, "max_tokens": None, "trace": {"trace_id": "own"}}
    allow = await tagging(setup).allow(members)
    edited = json.loads(apply_edits(request(members).body, allow.edits))
    assert edited["max_tokens"] > 0
    assert TAGS.hold_id(edited["trace"]["tollkeeper"]) == allow.hold_id
    assert edited["trace"]["trace_id"] == "own"
    decision = CheckResponse.FromString(wire.from_decision(allow)).dynamic_metadata
    told = decision.fields["edits"].string_value
    assert told == "".join(edit.to_text() for edit in allow.edits)
    offsets = [edit.offset for edit in allow.edits]
    assert offsets == sorted(offsets)
    assert len(offsets) == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["2f1b7c1e-1c64-4a8e-9d3b-0123456789ab"], UUID("2f1b7c1e1c644a8e9d3b0123456789ab")),
        (["2f1b7c1e1c644a8e9d3b0123456789ab"], None),
        (["{2f1b7c1e-1c64-4a8e-9d3b-0123456789a}"], None),
        (["2f1b7c1e-1c64-4a8e-9d3b-0123456789xx"], None),
        (["2f1b7c1e-1c64-4a8e-9d3b-0123456789ab"] * 2, None),
    ],
)
async def test_the_hold_remembers_envoys_id_of_the_request(
    setup: DeciderSetup, values: list[str], expected: UUID | None
) -> None:
    headers = (*request().headers, *(("x-request-id", value) for value in values))
    allow = await setup.allow(headers=headers)
    assert setup.holds.placed[allow.hold_id].request_id == expected
