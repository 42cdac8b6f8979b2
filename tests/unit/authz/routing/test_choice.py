"""The choice of the provider, and what its body then needs."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.callers.authorize import Candidates, authorize
from authz.decision import Deny, Reason
from authz.endpoints.body import Body, parse
from authz.endpoints.edits import edit_body
from authz.endpoints.rewriting import OPENROUTER_MEMBERS, Rewrite
from authz.routing.choice import Asked, Choice, choose
from authz.routing.own_keys import OwnKeys
from authz.routing.providers import NO_KEY, Providers
from meter.errors import ProviderUnavailable
from meter.identity.principal import OwnKeyMode, OwnKeyTerms
from meter.pricing.prices import Demand, Extra, Offer, estimate
from meter.providers.key_refusal import KeyRefusal
from meter.providers.key_store import OwnKey, StoredKey
from meter.providers.provider import DialectName
from meter.routing.route import ModelAlias, Route, RouteProvider
from meter.routing.table import RoutingTable
from meter.sealing import SecretText
from tests.fakes import EPOCH, model, price, principal
from tests.splices import apply_edits

DIALECTS = {
    "openrouter": DialectName.OPENROUTER,
    "openai": DialectName.OPENAI,
    "azure": DialectName.OPENAI,
    "claude": DialectName.ANTHROPIC,
    "vllm": DialectName.OPENAI_COMPATIBLE,
}
LISTED = {one.id: one for one in (model("acme/one"), model("acme/two"))}
OFFERS = [
    Offer("openai", "one", model("acme/one", prompt_picos=7)),
    Offer("azure", "one", model("acme/one", prompt_picos=9)),
    Offer("claude", "one-c", model("acme/one")),
    Offer("vllm", "own", model("near/own")),
]
DEMAND = Demand(1_000, 100)
REFUSED = KeyRefusal(401, "the key is unknown")


def stored(text: str, refusal: KeyRefusal | None = None) -> StoredKey:
    return StoredKey(SecretText(text), 1, EPOCH, refusal)


def providers_of(
    *routes: Route,
    aliases: tuple[ModelAlias, ...] = (),
    without_key: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
    disabled: tuple[str, ...] = (),
    offers: list[Offer] = OFFERS,
) -> Providers:
    dialects = {one: dialect for one, dialect in DIALECTS.items() if one not in disabled}
    table = RoutingTable(LISTED, offers, routes, aliases, frozenset(dialects))
    keys = {
        one: stored(f"sk-{one}", REFUSED if one in refused else None)
        for one in dialects
        if one not in without_key
    }
    return Providers(table, dialects, keys)


def route_to(*providers: str, pattern: str = "acme/one", route_id: str = "r") -> Route:
    """Return a route whose providers are named as `id`, `id:priority` or `id:priority:weight`."""
    named = []
    for place, text in enumerate(providers):
        provider, *numbers = text.split(":")
        priority, weight = (*map(int, numbers), *(place, 1)[len(numbers) :])
        named.append(RouteProvider(provider, priority, weight))
    return Route(route_id, pattern, tuple(named))


def asked_for(
    providers: Providers,
    members: dict[str, Any] | None = None,
    endpoint: str = "chat_completions",
    demand: Demand = DEMAND,
) -> Asked:
    sent = {"model": "acme/one", **(members or {})}
    candidates = authorize(principal(), sent, providers.table.models, providers.table.aliases)
    assert isinstance(candidates, Candidates), candidates
    return Asked(endpoint, sent, candidates, demand)


def chosen(providers: Providers, *arguments: Any, **members: Any) -> Choice:
    choice = choose(asked_for(providers, members), providers, principal(), *(arguments or (None,)))
    assert isinstance(choice, Choice), choice
    return choice


def refused(providers: Providers, endpoint: str = "chat_completions", **members: Any) -> Deny:
    denied = choose(asked_for(providers, members, endpoint), providers, principal(), None)
    assert isinstance(denied, Deny), denied
    return denied


def test_without_a_route_openrouter_serves_what_it_lists_by_the_default_path() -> None:
    choice = chosen(providers_of())
    assert (choice.upstream, choice.rewrite) == (None, None)
    assert choice.key.reveal() == "sk-openrouter"
    assert choice.models == [LISTED["acme/one"]]
    assert choice.takes_openrouter_members


def test_a_model_of_another_provider_goes_there_under_its_name() -> None:
    choice = chosen(providers_of(), model="near/own", stream=True)
    assert choice.upstream is not None
    assert (choice.upstream.cluster, choice.upstream.provider) == ("provider-vllm", "vllm")
    assert not choice.upstream.is_own_key
    assert choice.rewrite == Rewrite("own", None, None, True)
    assert not choice.takes_openrouter_members
    # A server of our own may need no key. The client's credential must not reach it.
    without = chosen(providers_of(without_key=("vllm",)), model="near/own")
    assert without.key is NO_KEY


def test_anthropic_serves_messages_by_its_own_api() -> None:
    providers = providers_of(route_to("openai", "claude"))
    members = {"stream": True, "system": "Be brief.", "max_tokens": 9}
    asked = asked_for(providers, members, "messages")
    choice = choose(asked, providers, principal(), None)
    assert isinstance(choice, Choice), choice
    assert choice.upstream is not None and choice.upstream.provider == "claude"
    # Usage is in each stream of Messages.
    assert choice.rewrite == Rewrite("one-c", None, None, False)
    alone = providers_of(route_to("claude"))
    for member in ("plugins", "models"):
        not_openrouters = refused(alone, "messages", **{member: ["acme/two"]})
        assert not_openrouters.param == member
    # Our logs do not say how long a cache lives, and Anthropic names no cost.
    long = replace(DEMAND, extras=frozenset({Extra.LONG_CACHE}))
    denied = choose(asked_for(alone, members, "messages", long), alone, principal(), None)
    assert isinstance(denied, Deny) and denied.param == "cache_control"


def test_a_route_names_the_provider_and_its_price() -> None:
    choice = chosen(providers_of(route_to("openai")))
    assert choice.upstream is not None and choice.upstream.provider == "openai"
    assert [one.price.prompt_picos for one in choice.models] == [7]
    assert choice.rewrite == Rewrite("one", None, "max_completion_tokens", False)


def test_providers_without_a_key_are_passed_over_and_refused_keys_come_last() -> None:
    route = route_to("openai", "claude")
    for changes, first in (
        ({}, "openai"),
        ({"without_key": ("openai",)}, "claude"),
        ({"refused": ("openai",)}, "claude"),
        ({"refused": ("openai", "claude")}, "openai"),
        ({"disabled": ("openai",)}, "claude"),
    ):
        choice = chosen(providers_of(route, **changes))
        assert choice.upstream is not None and choice.upstream.provider == first, changes
    with pytest.raises(ProviderUnavailable, match="openai, claude"):
        chosen(providers_of(route, without_key=("openai", "claude")))
    denied = refused(providers_of(route, disabled=("openai", "claude")))
    assert denied.reason is Reason.MODEL_NOT_FOUND


def test_providers_of_one_priority_share_by_weight() -> None:
    providers = providers_of(route_to("openai:0:3", "claude:0:1", "azure:1:100"))
    draws = [place / 100 for place in range(100)]
    found = [chosen(providers, None, lambda draw=draw: draw).offers[0].provider for draw in draws]
    # In the order of ids, for equal priorities.
    assert [found.count(one) for one in ("openai", "claude", "azure")] == [75, 25, 0]


def test_envoy_asks_the_next_provider_only_where_one_body_fits_all() -> None:
    choice = chosen(providers_of(route_to("openai", "azure")))
    assert choice.upstream is not None
    assert (choice.upstream.cluster, choice.upstream.provider) == ("route-r", "openai")
    assert choice.key.reveal() == "sk-openai"
    assert [(one, key.reveal()) for one, key in choice.upstream.fallbacks] == [
        ("azure", "sk-azure")
    ]
    # The dearer one is second, and the hold has its price.
    assert [one.price.prompt_picos for one in choice.models] == [9, 7]
    for route, changes in (
        (route_to("openai", "claude"), {}),  # another name of the model
        (route_to("openai", "openrouter"), {}),  # other edits
        (route_to("openai", "azure"), {"refused": ("azure",)}),
        (route_to("openai", "azure"), {"without_key": ("azure",)}),
        # Envoy's cluster has it, whether it offers the model or not.
        (route_to("openai", "azure", "vllm"), {}),
    ):
        alone = chosen(providers_of(route, **changes))  # type: ignore[arg-type]
        assert alone.upstream is not None
        assert (alone.upstream.cluster, alone.upstream.fallbacks) == ("provider-openai", ())
    missing = chosen(providers_of(route_to("openai", "azure", "vllm"), disabled=("vllm",)))
    assert missing.upstream is not None and missing.upstream.cluster == "route-r"


@pytest.mark.parametrize("member", OPENROUTER_MEMBERS)
def test_members_of_openrouter_go_there_where_the_route_allows_it(member: str) -> None:
    members: dict[str, Any] = {member: ["acme/two"] if member == "models" else {"some": "thing"}}
    both = providers_of(route_to("openai", "openrouter"))
    assert chosen(both, **members).upstream is None
    denied = refused(providers_of(route_to("openai")), **members)
    assert (denied.reason, denied.param) == (Reason.INVALID_VALUE, member)
    assert "OpenRouter only" in denied.message
    assert chosen(providers_of(route_to("openai")), **{member: None}).upstream is not None


def test_suffixes_of_openrouter_go_there_where_the_route_allows_it() -> None:
    for name in ("acme/one:online", "fast:nitro:online"):
        aliases = (ModelAlias("fast", "acme/one"),)
        both = providers_of(route_to("openai", "openrouter"), aliases=aliases)
        choice = chosen(both, model=name)
        assert choice.upstream is None
        if name.startswith("fast"):
            assert choice.rewrite == Rewrite("acme/one:nitro:online")
        denied = refused(providers_of(route_to("openai"), aliases=aliases), model=name)
        assert (denied.reason, denied.param) == (Reason.INVALID_VALUE, "model")


def test_a_provider_without_the_endpoint_is_passed_over() -> None:
    providers = providers_of(route_to("claude", "openai"))
    asked = asked_for(providers, endpoint="embeddings")
    choice = choose(asked, providers, principal(), None)
    assert isinstance(choice, Choice) and choice.offers[0].provider == "openai"
    denied = refused(providers_of(route_to("claude")), "embeddings")
    assert "no such endpoint" in denied.message


def test_fallback_models_must_be_of_openrouter_and_are_named_as_there() -> None:
    aliases = (ModelAlias("fast", "acme/two"), ModelAlias("mine", "near/own"))
    providers = providers_of(aliases=aliases)
    choice = chosen(providers, models=["fast", "acme/two:nitro"])
    assert choice.rewrite == Rewrite(None, ("acme/two", "acme/two:nitro"))
    assert [one.id for one in choice.models] == ["acme/one", "acme/two", "acme/two"]
    for name in ("near/own", "mine"):
        denied = refused(providers, models=[name])
        assert (denied.reason, denied.param) == (Reason.INVALID_VALUE, "models")
        assert name in denied.message


def own(*names: str, refused: tuple[str, ...] = ()) -> OwnKeys:
    keys = {one: OwnKey(SecretText(f"own-{one}"), one in refused) for one in names}
    return OwnKeys(keys, 0.0)


def with_terms(
    mode: OwnKeyMode = OwnKeyMode.PREFER, may_fall_back: bool = False, fee_bps: int = 0
) -> Any:
    terms = OwnKeyTerms(mode, may_fall_back, fee_bps)
    return replace(principal(), markup_bps=500, has_own_keys=True, own_key_terms=terms)


def test_an_own_key_goes_straight_to_its_provider_whatever_the_route() -> None:
    providers = providers_of(route_to("azure"), refused=("openai",), without_key=("openai",))
    choice = choose(asked_for(providers), providers, with_terms(fee_bps=100), own("openai"))
    assert isinstance(choice, Choice) and choice.upstream is not None
    assert choice.upstream.is_own_key
    assert (choice.upstream.cluster, choice.key.reveal()) == ("provider-openai", "own-openai")
    assert choice.markup_bps == -9_900
    # A key of OpenRouter serves every model that it lists, and the provider's own comes first.
    for keys, cluster in (
        (own("openrouter"), "provider-openrouter"),
        (own("openrouter", "claude"), "provider-claude"),
        (own("openrouter", "claude", refused=("claude",)), "provider-openrouter"),
        (own("claude", refused=("claude",)), "provider-claude"),
    ):
        choice = choose(asked_for(providers), providers, with_terms(), keys)
        assert isinstance(choice, Choice) and choice.upstream is not None
        assert (choice.upstream.cluster, choice.markup_bps) == (cluster, -10_000)
    # Another model than that of the key.
    choice = choose(asked_for(providers), providers, with_terms(), own("vllm"))
    assert isinstance(choice, Choice) and choice.markup_bps == 500


def test_credit_is_used_in_place_of_an_own_key_only_where_the_owner_allows_it() -> None:
    providers = providers_of()
    asked = asked_for(providers)
    denied = choose(asked, providers, with_terms(OwnKeyMode.ONLY), own("vllm"))
    assert isinstance(denied, Deny) and denied.reason is Reason.NO_OWN_KEY
    denied = choose(asked, providers, with_terms(OwnKeyMode.ONLY, True), own("vllm"))
    assert isinstance(denied, Deny) and denied.reason is Reason.NO_OWN_KEY
    for terms, markup_bps in ((with_terms(), -10_000), (with_terms(may_fall_back=True), 500)):
        choice = choose(asked, providers, terms, own("openai", refused=("openai",)))
        assert isinstance(choice, Choice) and choice.markup_bps == markup_bps
        unknown = asked_for(providers, {"plugins": []})
        answer = choose(unknown, providers, terms, own("openai"))
        assert isinstance(answer, Deny if markup_bps < 0 else Choice)
    sealed = OwnKeys({"openai": OwnKey(None, False)}, 0.0)
    denied = choose(asked, providers, with_terms(), sealed)
    assert isinstance(denied, Deny) and denied.reason is Reason.OWN_KEY_REJECTED
    choice = choose(asked, providers, with_terms(may_fall_back=True), sealed)
    assert isinstance(choice, Choice) and choice.markup_bps == 500


def parsed(members: object) -> Body:
    body = parse(json.dumps(members).encode())
    assert isinstance(body, Body)
    return body


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (..., {"include_usage": True}),
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": None, "x": 1}, {"include_usage": True, "x": 1}),
        ({"x": {"y": 1}}, {"include_usage": True, "x": {"y": 1}}),
        ({"include_usage": True}, {"include_usage": True}),
    ],
)
def test_the_usage_of_a_stream_is_asked_for(options: Any, expected: Any) -> None:
    members = {"model": "acme/one", "stream": True, "max_tokens": None, "messages": "é"}
    if options is not ...:
        members["stream_options"] = options
    raw = json.dumps(members, ensure_ascii=False).encode()
    body = parse(raw)
    assert isinstance(body, Body)
    rewrite = Rewrite("öne", None, "max_completion_tokens", True)
    edited = json.loads(apply_edits(raw, edit_body(body, 9, None, None, rewrite)))
    wanted = {**members, "model": "öne", "stream_options": expected, "max_completion_tokens": 9}
    assert edited == wanted


def test_stream_options_that_cannot_take_the_demand_are_refused() -> None:
    providers = providers_of(route_to("openai"))
    for options in (7, "all", {"Include_Usage": False}):
        denied = refused(providers, stream=True, stream_options=options)
        assert denied.reason is Reason.INVALID_VALUE
        assert chosen(providers, stream_options=options).upstream is not None


PROVIDERS = [name for name in DIALECTS if name != "openrouter"]
PICOS = st.integers(0, 10**7)
OFFER_LISTS = st.lists(
    st.builds(
        lambda provider, model_id, prompt, completion, longest: Offer(
            provider,
            "same",
            replace(
                model(model_id, longest=longest),
                price=price(model_id, prompt_picos=prompt, completion_picos=completion),
            ),
        ),
        st.sampled_from(PROVIDERS),
        st.sampled_from(["acme/one", "acme/two", "near/own"]),
        PICOS,
        PICOS,
        st.integers(1, 10_000),
    ),
    max_size=8,
    unique_by=lambda one: (one.provider, one.model.id),
)
ROUTE_LISTS = st.lists(
    st.builds(
        lambda names, pattern: route_to(*names, pattern=pattern),
        st.lists(st.sampled_from([*DIALECTS]), min_size=1, max_size=4, unique=True),
        st.sampled_from(["acme/one", "acme/*", "*", "near/own"]),
    ),
    max_size=3,
    unique_by=lambda one: one.pattern,
)
DEMANDS = st.builds(Demand, st.integers(1, 10**6), st.none() | st.integers(1, 10**5))


@given(
    OFFER_LISTS,
    ROUTE_LISTS,
    st.sets(st.sampled_from([*DIALECTS]), max_size=3),
    st.sampled_from(["acme/one", "acme/two", "fast"]),
    st.dictionaries(st.sampled_from(["stream", "plugins", "seed"]), st.just(True)),
    DEMANDS,
    st.floats(0, 1, exclude_max=True),
)
def test_the_hold_covers_whichever_provider_serves_the_request(
    offers: list[Offer],
    routes: list[Route],
    missing: set[str],
    name: str,
    members: dict[str, Any],
    demand: Demand,
    draw: float,
) -> None:
    named = tuple(
        replace(one, id=f"r{place}") for place, one in zip(itertools.count(), routes, strict=False)
    )
    providers = providers_of(
        *named,
        aliases=(ModelAlias("fast", "acme/one"),),
        without_key=tuple(missing),
        offers=offers,
    )
    asked = asked_for(providers, {"model": name, **members}, demand=demand)
    try:
        choice = choose(asked, providers, principal(), None, lambda: draw)
    except ProviderUnavailable:
        return
    if isinstance(choice, Deny):
        return
    route = providers.table.find_route(asked.candidates.asked.id)
    bound = estimate(demand, choice.models, 500, 16)
    dearest = 0
    for offer in choice.offers:
        # Nobody serves but the providers of the route, with a key, under its own price.
        assert route is None or offer.provider in {one.provider for one in route.providers}
        assert providers.find_key(offer.provider) is not None
        assert "plugins" not in members or offer.provider == "openrouter"
        alone = estimate(demand, [offer.model], 500, 16)
        assert alone.fixed_picos <= bound.fixed_picos
        assert alone.per_token_picos <= bound.per_token_picos
        assert alone.max_tokens <= bound.max_tokens
        dearest = max(dearest, alone.fixed_picos + alone.per_token_picos * alone.max_tokens)
    first = estimate(demand, choice.models[:1], 500, 16)
    assert first.fixed_picos + first.per_token_picos * first.max_tokens == dearest
    fallbacks = () if choice.upstream is None else choice.upstream.fallbacks
    assert [one.provider for one in choice.offers][1:] == [provider for provider, _ in fallbacks]
