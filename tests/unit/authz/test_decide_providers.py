"""Decisions about requests that do not all go to OpenRouter with our key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from authz import decide
from authz.callers.authenticate import Authenticator
from authz.callers.authorize import Candidates, authorize
from authz.callers.principal_cache import PrincipalCache
from authz.catalogue import CatalogueSnapshot, KeyState
from authz.decide import DeadlinePassed, Decider, Terms
from authz.decision import Allow, Decision, Deny, NeedsWholeBody, Reason
from authz.fresh_answers import MAX_ANSWER_AGE_S
from authz.limits.counting import Limits
from authz.metrics import Metrics
from authz.policy import MIN_PARTIAL_BODY_BYTES
from authz.request import AuthRequest
from authz.routing.choice import takes_default_path
from authz.routing.own_keys import OwnKeyCache
from meter.clock import ManualClock
from meter.errors import ProviderUnavailable
from meter.holds.hold import HoldAnswer, HoldRequest
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.keys.key_text import Pepper, mint
from meter.identity.principal import OwnKeyTerms, Principal
from meter.pricing.prices import LIKELY_WORK_PICOS, Offer
from meter.providers.key_store import OwnKey
from meter.providers.provider import DialectName
from meter.providers.report_tags import ReportTags
from meter.routing.route import ModelAlias, Route, RouteProvider
from meter.sealing import SecretText
from tests.fakes import (
    EPOCH,
    FakeCatalogue,
    FakeHolds,
    FakeJwts,
    FakeLimiter,
    FakeLimitRules,
    FakePrincipals,
    FakeProviderKeys,
    FakeRouting,
    model,
    principal,
)
from tests.splices import apply_edits

PEPPER = Pepper(bytes.fromhex("11" * 32))
KEY = mint().plain.reveal()
CHAT: dict[str, Any] = {"model": "acme/one", "messages": [{"role": "user", "content": "hi"}]}
TAGS = ReportTags.from_master_key(b"m" * 32)


class OwnKeysOfOne:
    """The own keys of every account."""

    def __init__(self) -> None:
        self.keys: dict[str, OwnKey] = {}
        self.asked = 0

    async def find_own_keys(self, account_id: str) -> Mapping[str, OwnKey]:
        self.asked += 1
        return self.keys


class SlowHolds(FakeHolds):
    """Holds that take `takes_s` to be placed."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.takes_s = 0.0

    async def place(self, request: HoldRequest) -> HoldAnswer:
        self._clock.advance(self.takes_s)
        return await super().place(request)


@dataclass
class House:
    """A decider with two providers beside OpenRouter."""

    who: Principal
    clock: ManualClock
    holds: SlowHolds
    catalogue: FakeCatalogue
    routing: FakeRouting
    keys: FakeProviderKeys
    own: OwnKeysOfOne
    snapshot: CatalogueSnapshot
    principals: FakePrincipals
    decider: Decider

    async def decide(self, members: object = CHAT, **changes: Any) -> Decision:
        await self.snapshot.refresh()
        return await self.decider.decide(replace(request(members), **changes), float("inf"))

    async def allow(self, members: object = CHAT) -> tuple[Allow, dict[str, Any]]:
        decision = await self.decide(members)
        assert isinstance(decision, Allow), decision
        return decision, json.loads(apply_edits(request(members).body, decision.edits))

    def become(self, who: Principal) -> None:
        self.principals.known[PEPPER.digest(KEY)] = who
        self.clock.advance(1)


def request(members: object) -> AuthRequest:
    headers = (("authorization", f"Bearer {KEY}"), ("content-type", "application/json"))
    return AuthRequest("POST", "/v1/chat/completions", headers, json.dumps(members).encode())


def open_house(who: Principal | None = None) -> House:
    clock, metrics = ManualClock(EPOCH), Metrics(CollectorRegistry())
    who = who or principal()
    principals = FakePrincipals({PEPPER.digest(KEY): who})
    catalogue = FakeCatalogue(
        model("acme/one"), model("acme/two", completion_picos=9_000_000), model("acme/small")
    )
    catalogue.offers = [
        Offer("openai", "one", model("acme/one", prompt_picos=500_000)),
        Offer("azure", "one", model("acme/one", completion_picos=7_000_000)),
        Offer("vllm", "own", model("near/own")),
    ]
    routing, keys, rules = FakeRouting(), FakeProviderKeys(), FakeLimitRules()
    routing.dialects |= {
        "openai": DialectName.OPENAI,
        "azure": DialectName.OPENAI,
        "vllm": DialectName.OPENAI_COMPATIBLE,
    }
    snapshot = CatalogueSnapshot(catalogue, keys, rules, routing, metrics)
    holds, own = SlowHolds(clock), OwnKeysOfOne()
    decider = Decider(
        Authenticator(
            CredentialResolver(PEPPER, PrincipalCache(principals, clock, metrics, 0.9), FakeJwts())
        ),
        snapshot,
        Limits(FakeLimiter(clock), snapshot, metrics),
        holds,
        clock,
        metrics,
        Terms(floor_tokens=16, max_body_bytes=2**20),
        TAGS.tag,
        own_keys=OwnKeyCache(own.find_own_keys, clock, 0.5),
    )
    return House(
        who, clock, holds, catalogue, routing, keys, own, snapshot, principals, decider
    )  # fmt: skip


@pytest.fixture
def house() -> House:
    return open_house()


def route(*providers: str, pattern: str = "acme/one") -> Route:
    named = tuple(RouteProvider(one, place) for place, one in enumerate(providers))
    return Route("r", pattern, named)


async def test_openrouter_keeps_its_models_with_limits_of_prices_and_tags(house: House) -> None:
    allow, body = await house.allow()
    assert allow.upstream is None
    assert body["provider"]["max_price"] and body["trace"]
    assert body["model"] == "acme/one"


async def test_another_provider_reads_its_own_names_and_nothing_of_openrouter(house: House) -> None:
    house.routing.routes = [route("openai")]
    allow, body = await house.allow({**CHAT, "stream": True})
    assert allow.upstream is not None and allow.upstream.cluster == "provider-openai"
    assert body == {
        **CHAT,
        "model": "one",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 4_096,
    }
    assert allow.model_id == "acme/one"
    held = house.holds.placed[allow.hold_id].estimate
    assert held.fixed_picos == (len(request({**CHAT, "stream": True}).body) + 1_024) * 500_000


async def test_only_openrouter_is_paid_for_reading_documents(house: House) -> None:
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}
    document = {**CHAT, "messages": [{"role": "user", "content": [file]}], "max_tokens": 1}
    house.holds.available_picos = 10**14
    flat = {}
    for provider in ("openrouter", "openai"):
        house.routing.routes = [] if provider == "openrouter" else [route(provider)]
        allow, _ = await house.allow(document)
        flat[provider] = house.holds.placed[allow.hold_id].estimate.flat_cost_picos
    # The likely cost of recognition, of which no policy may charge more.
    assert flat == {"openrouter": LIKELY_WORK_PICOS, "openai": 0}


async def test_the_hold_is_that_of_the_dearest_provider_of_a_fallback(house: House) -> None:
    house.routing.routes = [route("openai", "azure")]
    allow, body = await house.allow({**CHAT, "max_tokens": 100})
    assert allow.upstream is not None and allow.upstream.cluster == "route-r"
    held = house.holds.placed[allow.hold_id].estimate
    assert held.per_token_picos == 7_000_000
    assert body == {**CHAT, "model": "one", "max_tokens": 100}


async def test_an_alias_is_served_as_the_model_that_it_means(house: House) -> None:
    house.routing.aliases = [ModelAlias("fast", "acme/two"), ModelAlias("mine", "near/own")]
    allow, body = await house.allow({**CHAT, "model": "fast", "models": ["fast:nitro"]})
    assert allow.upstream is None
    assert (allow.model_id, body["model"], body["models"]) == (
        *("acme/two", "acme/two"),
        ["acme/two:nitro"],
    )
    allow, body = await house.allow({**CHAT, "model": "mine"})
    assert (allow.model_id, body["model"]) == ("near/own", "own")
    denied = await house.decide({**CHAT, "model": "gone"})
    assert isinstance(denied, Deny) and denied.reason is Reason.MODEL_NOT_FOUND


def with_own_keys(**terms: Any) -> Principal:
    return replace(
        principal(), markup_bps=500, has_own_keys=True, own_key_terms=OwnKeyTerms(**terms)
    )


async def test_an_own_key_needs_no_credit(house: House) -> None:
    house.become(with_own_keys())
    house.own.keys = {"openai": OwnKey(SecretText("own-key"), False)}
    house.holds.available_picos = 0
    allow, body = await house.allow()
    assert allow.upstream is not None and allow.upstream.is_own_key
    assert allow.provider_key.reveal() == "own-key"
    # No money bounds the reply, so no limit is written.
    assert body == {**CHAT, "model": "one"}
    held = house.holds.placed[allow.hold_id].estimate
    assert (held.fixed_picos, held.per_token_picos, held.markup_bps) == (0, 0, -10_000)
    denied = await house.decide({**CHAT, "model": "acme/two"})
    assert isinstance(denied, Deny) and denied.reason is Reason.INSUFFICIENT_CREDITS
    whole = await house.decide(
        {**CHAT, "user": "x" * MIN_PARTIAL_BODY_BYTES},
        extensions={"partial-body": str(MIN_PARTIAL_BODY_BYTES)},
    )
    assert isinstance(whole, NeedsWholeBody)


async def test_the_fee_of_an_own_key_is_held(house: House) -> None:
    house.become(with_own_keys(fee_bps=500))
    house.own.keys = {"openrouter": OwnKey(SecretText("own-key"), False)}
    allow, body = await house.allow({**CHAT, "max_tokens": 100})
    assert allow.upstream is not None and allow.upstream.cluster == "provider-openrouter"
    held = house.holds.placed[allow.hold_id].estimate
    assert (held.markup_bps, held.per_token_picos) == (-9_500, 2_000_000 // 20)
    assert body["provider"]["max_price"]


async def test_nobody_else_is_asked_about_own_keys(house: House) -> None:
    await house.allow()
    assert house.own.asked == 0


async def test_an_own_key_that_was_read_long_ago_leaves_with_no_decision(house: House) -> None:
    house.become(with_own_keys())
    house.own.keys = {"openai": OwnKey(SecretText("own-key"), False)}
    await house.allow()
    # The cached keys are of just before; the hold takes longer than they may be used.
    house.clock.advance(0.4)
    house.holds.takes_s = MAX_ANSWER_AGE_S - 0.3
    with pytest.raises(DeadlinePassed):
        await house.decide()
    assert len(house.holds.released) == 1


async def test_the_worst_key_of_the_enabled_providers_is_shown(house: House) -> None:
    # A server of our own may need no key.
    for missing, state in ((None, KeyState.OK), ("vllm", KeyState.OK), ("openai", "missing")):
        house.keys.others = {} if missing is None else {missing: None}
        await house.snapshot.refresh()
        assert house.snapshot.key_state == state
    house.routing.routes = [route("openai")]
    with pytest.raises(ProviderUnavailable, match="openai"):
        await house.decide()


@pytest.mark.parametrize(
    ("name", "patterns", "is_allowed"),
    [
        ("fast", ["acme/*"], True),
        ("fast", ["acme/one"], True),
        ("fast", ["fast"], True),
        ("fast:online", ["fast"], True),
        ("acme/one", ["fast"], False),
        # A pattern was written for models: an alias that it happens to match is no way round it.
        ("fast", ["f*"], False),
        ("acme/small-and-cheap", ["acme/small*"], False),
        ("acme/small-and-cheap:nitro", ["acme/small*"], False),
        ("acme/small-and-cheap", ["acme/small*", "acme/two"], True),
        # A list that names a retired model was made for that model.
        ("acme/old", ["acme/old"], False),
        ("acme/old", ["acme/*"], True),
        ("acme/one:nitro", ["acme/one:*"], True),
    ],
)
def test_lists_of_models_judge_what_an_alias_means(
    name: str, patterns: list[str], is_allowed: bool
) -> None:
    aliases = {
        one.name: one
        for one in (
            ModelAlias("fast", "acme/one"),
            ModelAlias("acme/small-and-cheap", "acme/two"),
            ModelAlias("acme/old", "acme/one", is_redirect=True),
        )
    }
    models = {one.id: one for one in (model("acme/one"), model("acme/two"))}
    models |= {one.name: models[one.model_id] for one in aliases.values()}
    who = principal(frozenset(patterns))
    answer = authorize(who, {**CHAT, "model": name}, models, aliases)
    assert isinstance(answer, Candidates) is is_allowed
    if isinstance(answer, Deny):
        assert answer.reason is Reason.MODEL_NOT_ALLOWED


BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["acme/one", "acme/two", "acme/one:online", "gone"])},
    optional={
        "messages": st.just([{"role": "user", "content": "hi"}]),
        "models": st.lists(st.sampled_from(["acme/two", "acme/small:nitro", "none"]), max_size=2),
        "max_tokens": st.none() | st.integers(0, 10_000),
        "stream": st.booleans(),
        "stream_options": st.just({"include_usage": False}),
        "plugins": st.just([{"id": "web"}]),
        "provider": st.just({"sort": "price"}),
        "reasoning": st.just({"effort": "high"}),
        "n": st.integers(1, 3),
    },
)
NO_ID = UUID(int=0)


@given(BODIES)
async def test_openrouter_alone_decides_as_if_nothing_else_could_be_chosen(
    members: dict[str, Any],
) -> None:
    answers = []
    for is_plain, may_skip in ((True, True), (False, True), (False, False)):
        house = open_house()
        house.catalogue.offers, house.routing.dialects = [], {"openrouter": DialectName.OPENROUTER}
        if not is_plain:
            # Of a model that nobody asks for, so that every request has its provider chosen.
            house.routing.aliases = [ModelAlias("unasked", "acme/one")]
        skips = takes_default_path if may_skip else lambda *_: False
        with patch.object(decide, "takes_default_path", skips):
            decision = await house.decide(members)
        assert house.snapshot.providers.table.is_plain is is_plain
        if isinstance(decision, Allow):
            body = json.loads(apply_edits(request(members).body, decision.edits))
            assert body.pop("trace")
            held = house.holds.placed[decision.hold_id].estimate
            answers.append((replace(decision, hold_id=NO_ID, edits=()), body, held))
        else:
            answers.append((decision, {}, None))  # type: ignore[arg-type]
    assert repr(answers[0]) == repr(answers[1]) == repr(answers[2])
