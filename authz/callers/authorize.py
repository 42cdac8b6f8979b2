"""Judges whether a principal may send a request. Pure: it uses nothing but its arguments."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from authz.decision import Deny, Reason, Refused, deny, echo
from authz.endpoints.openrouter import find_model, named_models, split_suffixes
from authz.policy import RoutePolicy
from meter.identity.principal import Principal
from meter.network import Address, is_allowed
from meter.pricing.prices import Model
from meter.providers.openrouter import ONLINE_SUFFIX
from meter.routing.model_rights import may_use
from meter.routing.nearest_model import NearestModels
from meter.routing.route import ModelAlias

_NEAREST: Final = NearestModels()
NO_ALIASES: Final[Mapping[str, ModelAlias]] = MappingProxyType({})


class Candidates(NamedTuple):
    """The models that a request names, the asked one first, and the names as the client wrote them.

    `is_online` is true when a name asks for web search.
    """

    models: list[Model]
    names: list[tuple[str, str]]
    is_online: bool

    @property
    def asked(self) -> Model:
        """Return the model that the request names."""
        return self.models[0]


def admit(
    principal: Principal, policy: RoutePolicy, address: Address | None, now: datetime
) -> Deny | None:
    """Return why the principal may not call the route from this address now; None if it may."""
    if principal.ends_at is not None and principal.ends_at <= now:
        return deny(Reason.INVALID_API_KEY)
    if principal.is_suspended:
        return deny(Reason.ACCOUNT_SUSPENDED)
    if not is_allowed(address, principal.networks):
        message = f"This {principal.presented} may not be used from this address."
        return deny(Reason.ADDRESS_NOT_ALLOWED, message)
    if policy.scope not in principal.scopes:
        message = f"This needs the scope '{policy.scope}', which the {principal.presented} lacks."
        return deny(Reason.INSUFFICIENT_SCOPE, message)
    return None


def authorize(
    principal: Principal,
    members: Mapping[str, Any],
    catalogue: Mapping[str, Model],
    aliases: Mapping[str, ModelAlias] = NO_ALIASES,
) -> Candidates | Deny:
    """Return the models that a request names, or the refusal of one that may not be used.

    The catalogue has the aliases too, each with the model that it means.
    """
    try:
        named = named_models(members)
        models = [_permitted(principal, name, param, catalogue, aliases) for name, param in named]
    except Refused as refused:
        return refused.deny
    return Candidates(models, named, any(name.endswith(ONLINE_SUFFIX) for name, _ in named))


def _permitted(
    principal: Principal,
    name: str,
    param: str,
    catalogue: Mapping[str, Model],
    aliases: Mapping[str, ModelAlias],
) -> Model:
    model = find_model(name, catalogue)
    if model is None:
        suggestion = _suggest(principal, name, catalogue, aliases)
        message = f"The model '{echo(name)}' does not exist. {suggestion}"
        raise Refused(deny(Reason.MODEL_NOT_FOUND, message, param))
    if not principal.model_lists:
        return model
    alias = aliases.get(split_suffixes(name, catalogue)[0]) if aliases else None
    if not may_use(principal, model.id, name, alias):
        means = "" if alias is None else f", which means '{model.id}' here"
        message = f"This {principal.presented} may not use the model '{echo(name)}'{means}."
        raise Refused(deny(Reason.MODEL_NOT_ALLOWED, message, param))
    return model


def _suggest(
    principal: Principal,
    wrong: str,
    catalogue: Mapping[str, Model],
    aliases: Mapping[str, ModelAlias],
) -> str:
    """Return a sentence that names the nearest model that the principal may use, or the list."""
    nearest = _NEAREST.find(
        wrong,
        catalogue.keys(),
        lambda name: may_use(principal, catalogue[name].id, name, aliases.get(name)),
    )
    if nearest is None:
        return "GET /v1/models lists those that do."
    return f"Did you mean '{nearest}'?"
