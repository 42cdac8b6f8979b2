"""The choice of the provider that serves a request. Pure, but for the draw among equal ones.

An own key of the account comes first, whatever route the model has: the account pays for it. Then
the providers of the model's route in order; without a route OpenRouter, where it lists the model,
else the provider that offers it. A provider that is disabled or has no key is passed over.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from authz.callers.authorize import Candidates
from authz.decision import Deny, Reason, Refused, Upstream, deny, echo
from authz.endpoints.dialects import (
    find_openrouter_member,
    has_endpoint,
    has_stream_options,
    limit_member,
    tells_cache_lives,
)
from authz.endpoints.openrouter import split_suffixes
from authz.endpoints.rewriting import Rewrite, refuse_stream_options
from authz.routing.own_keys import OwnKeys, choose_own_key
from authz.routing.providers import Providers
from meter.errors import ProviderUnavailable
from meter.identity.principal import OwnKeyMode, Principal
from meter.pricing.prices import DEFAULT_PROVIDER, Demand, Extra, Model, Offer, estimate
from meter.providers.provider import Dialect
from meter.routing.route import Route, provider_cluster_name, route_cluster_name
from meter.routing.table import RoutingTable
from meter.sealing import SecretText
from meter.values import light_value


class Asked(NamedTuple):
    """The facts about a request that its provider depends on."""

    endpoint: str
    members: Mapping[str, Any]
    candidates: Candidates
    demand: Demand


@light_value
class Choice:
    """The provider that serves a request, or the providers of a route that Envoy asks in turn.

    `models` are for the estimate: the first one's price is that of the hold. `markup_bps` is below
    zero for an own key. `upstream` is None for the default path. `takes_openrouter_members` says
    that price limits and tags may be written into the body. `own_keys` has the keys, where one of
    them is used.
    """

    offers: tuple[Offer, ...]
    models: list[Model]
    key: SecretText
    markup_bps: int
    takes_openrouter_members: bool
    rewrite: Rewrite | None = None
    upstream: Upstream | None = None
    own_keys: OwnKeys | None = None

    def may_be_used_at(self, now_s: float) -> bool:
        """Return whether a decision that leaves now may carry the key."""
        return self.own_keys is None or self.own_keys.may_be_used_at(now_s)


def takes_default_path(candidates: Candidates, table: RoutingTable) -> bool:
    """Return whether only OpenRouter may serve these models, under the names that the body has.

    Then `choose` would choose OpenRouter with our key and change nothing in the body.
    """
    ways = table.ways(candidates.asked.id)
    return (
        len(ways) == 1
        and ways[0].provider == DEFAULT_PROVIDER
        and all(
            name == model.id and table.find_listed(name) is not None
            for model, (name, _) in zip(candidates.models, candidates.names, strict=True)
        )
    )


def choose(
    asked: Asked,
    providers: Providers,
    principal: Principal,
    own_keys: OwnKeys | None,
    draw: Callable[[], float] = random.random,
) -> Choice | Deny:
    """Return the choice for a request, or why no provider may serve it as it is.

    Raises ProviderUnavailable where none has a usable key. `draw` returns a number from 0 to 1.
    """
    try:
        if own_keys is not None:
            choice = _choose_own(asked, providers, principal, own_keys)
            if choice is not None:
                return choice
        return _choose_ours(asked, providers, principal, draw)
    except Refused as refused:
        return refused.deny


def _choose_own(
    asked: Asked, providers: Providers, principal: Principal, own_keys: OwnKeys
) -> Choice | None:
    """Return the choice of an own key; None for one of ours. Raises Refused."""
    terms, keys = principal.own_key_terms, own_keys.by_provider
    may_use_credit = terms.may_fall_back_to_credit and terms.mode is not OwnKeyMode.ONLY
    offers = {one.provider: one for one in providers.table.offers(asked.candidates.asked.id)}
    stored = [offer for name, offer in offers.items() if name in keys]
    fitting = _fitting(asked, providers, stored, is_strict=not may_use_credit)
    unfit = {offer.provider for offer in stored} - {offer.provider for offer in fitting}
    # A key that works comes before one that the provider refused lately.
    names = [name for name in offers if name not in unfit]
    names.sort(key=lambda name: name in keys and keys[name].is_refused)
    use = choose_own_key(principal, own_keys, names) if names else None
    if isinstance(use, Deny):
        raise Refused(use)
    if use is None:
        return None
    offer = offers[use.provider]
    return Choice(
        (offer,),
        _models(asked, providers, offer),
        use.plain,
        principal.own_key_markup_bps,
        providers.dialect(offer.provider).takes_openrouter_members,
        _rewrite(asked, providers, offer),
        Upstream(provider_cluster_name(offer.provider), offer.provider, is_own_key=True),
        own_keys,
    )


def _choose_ours(
    asked: Asked, providers: Providers, principal: Principal, draw: Callable[[], float]
) -> Choice:
    """Return the choice of a provider with our key. Raises Refused and ProviderUnavailable."""
    table, model_id = providers.table, asked.candidates.asked.id
    ways = table.ways(model_id)
    if not ways:
        name, param = asked.candidates.names[0]
        message = f"The model '{echo(name)}' is not offered at the moment."
        raise Refused(deny(Reason.MODEL_NOT_FOUND, message, param))
    fitting = _fitting(asked, providers, ways)
    keyed = [offer for offer in fitting if providers.find_key(offer.provider) is not None]
    if not keyed:
        names = ", ".join(offer.provider for offer in fitting)
        raise ProviderUnavailable(f"no usable key is set for {names}")
    usable = [offer for offer in keyed if not providers.is_refused(offer.provider)] or keyed
    route = table.find_route(model_id)
    in_turn = _in_turn(asked, providers, route, usable)
    first = in_turn[0] if in_turn else _pick(route, usable, draw)
    upstream = None
    if in_turn:
        assert route is not None
        fallbacks = tuple((one.provider, _our_key(providers, one)) for one in in_turn[1:])
        cluster = route_cluster_name(route.id)
        upstream = Upstream(cluster, first.provider, fallbacks=fallbacks)
    elif first.provider != DEFAULT_PROVIDER:
        upstream = Upstream(provider_cluster_name(first.provider), first.provider)
    return Choice(
        tuple(in_turn) or (first,),
        _dearest_first(in_turn, asked.demand) if in_turn else _models(asked, providers, first),
        _our_key(providers, first),
        principal.markup_bps,
        providers.dialect(first.provider).takes_openrouter_members,
        _rewrite(asked, providers, first),
        upstream,
    )


def _our_key(providers: Providers, offer: Offer) -> SecretText:
    key = providers.find_key(offer.provider)
    assert key is not None
    return key


def _fitting(
    asked: Asked, providers: Providers, offers: Sequence[Offer], is_strict: bool = True
) -> list[Offer]:
    """Return the offers of the providers that understand the request.

    Raises Refused where there is none, unless `is_strict` is false.
    """
    fitting = []
    refused: Refused | None = None
    for offer in offers:
        try:
            _require_fit(asked, providers, offer)
        except Refused as error:
            refused = refused or error
        else:
            fitting.append(offer)
    if refused is not None and not fitting and is_strict:
        raise refused
    return fitting


def _require_fit(asked: Asked, providers: Providers, offer: Offer) -> None:
    """Raise Refused where a provider would not understand the request."""
    dialect, table = providers.dialect(offer.provider), providers.table
    names = asked.candidates.names
    name = echo(names[0][0])
    if not has_endpoint(dialect.name, asked.endpoint):
        message = (
            f"The model '{name}' is not served at this path, because the API of its provider has no"
            " such endpoint. Choose another model or path."
        )
        raise Refused(deny(Reason.INVALID_VALUE, message, "model"))
    if dialect.takes_openrouter_members:
        for model, (fallback, param) in zip(asked.candidates.models, names, strict=True):
            if table.find_listed(model.id) is None:
                message = (
                    f"'models' names models that OpenRouter serves, and '{echo(fallback)}' is"
                    " served by another provider. Leave it out."
                )
                raise Refused(deny(Reason.INVALID_VALUE, message, param))
        return
    member = find_openrouter_member(asked.endpoint, asked.members)
    if member is None and (suffix := split_suffixes(names[0][0], table.models)[1]):
        message = (
            f"'{suffix}' works with OpenRouter only, and the model '{name}' is served by another"
            " provider. Leave it out of the name, or choose another model."
        )
        raise Refused(deny(Reason.INVALID_VALUE, message, "model"))
    if member is not None:
        message = (
            f"'{member}' works with OpenRouter only, and the model '{name}' is served by another"
            " provider. Leave it out, or choose another model."
        )
        raise Refused(deny(Reason.INVALID_VALUE, message, member))
    if _asks_for_usage(asked, dialect):
        refuse_stream_options(asked.members)
    long_cache = Extra.LONG_CACHE in asked.demand.extras
    if long_cache and not tells_cache_lives(dialect.name, asked.endpoint):
        message = (
            f"A prompt cache of one hour is not served with the model '{name}' at its provider. "
            "Leave 'ttl' out, or set it to '5m'."
        )
        raise Refused(deny(Reason.INVALID_VALUE, message, "cache_control"))


def _in_turn(
    asked: Asked, providers: Providers, route: Route | None, usable: Sequence[Offer]
) -> list[Offer]:
    """Return the offers that Envoy may ask in turn; empty where it must not.

    The cluster of a route has all its enabled providers, and sends the same body to each.
    """
    if route is None or len(usable) < 2:
        return []
    members = {one.provider for one in route.providers} & providers.table.enabled
    if members != {offer.provider for offer in usable}:
        return []
    first, *others = usable
    takes_price_limits = providers.dialect(first.provider).takes_openrouter_members
    rewrite = _rewrite(asked, providers, first)
    if takes_price_limits or any(_rewrite(asked, providers, one) != rewrite for one in others):
        return []
    return list(usable)


def _pick(route: Route | None, usable: Sequence[Offer], draw: Callable[[], float]) -> Offer:
    """Return one of the offers that are asked first, each as often as its weight says."""
    if route is None or len(usable) < 2:
        return usable[0]
    terms = {one.provider: one for one in route.providers}
    first = min(terms[offer.provider].priority for offer in usable)
    equal = [offer for offer in usable if terms[offer.provider].priority == first]
    at = draw() * sum(terms[offer.provider].weight for offer in equal)
    for offer in equal:
        at -= terms[offer.provider].weight
        if at < 0:
            return offer
    return equal[-1]


def _models(asked: Asked, providers: Providers, offer: Offer) -> list[Model]:
    """Return the models that may serve the request at one provider, the asked one first."""
    fallbacks = asked.candidates.models[1:]
    listed = (providers.table.find_listed(model.id) for model in fallbacks)
    return [offer.model, *(model for model in listed if model is not None)]


def _dearest_first(offers: Sequence[Offer], demand: Demand) -> list[Model]:
    """Return the models of the offers, the one first whose request costs most."""

    def bound_picos(model: Model) -> int:
        bound = estimate(demand, [model], 0, 1)
        return bound.fixed_picos + bound.per_token_picos * bound.max_tokens

    return sorted((offer.model for offer in offers), key=bound_picos, reverse=True)


def _rewrite(asked: Asked, providers: Providers, offer: Offer) -> Rewrite | None:
    """Return what the body needs for the provider of an offer; None where nothing."""
    dialect, table = providers.dialect(offer.provider), providers.table
    (name, _), *fallbacks = asked.candidates.names
    written = offer.upstream_name + split_suffixes(name, table.models)[1]
    models = tuple(
        model.id + split_suffixes(fallback, table.models)[1]
        for model, (fallback, _) in zip(asked.candidates.models[1:], fallbacks, strict=True)
    )
    rewrite = Rewrite(
        None if written == name else written,
        None if models == tuple(fallback for fallback, _ in fallbacks) else models,
        limit_member(dialect.name, asked.endpoint),
        _asks_for_usage(asked, dialect),
    )
    return None if rewrite == NO_REWRITE else rewrite


def _asks_for_usage(asked: Asked, dialect: Dialect) -> bool:
    """Return whether the body must ask for the usage of its stream."""
    return (
        dialect.asks_for_usage
        and asked.members.get("stream") is True
        and has_stream_options(asked.endpoint)
    )


NO_REWRITE: Final = Rewrite()
