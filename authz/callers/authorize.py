"""May this principal do this? Pure: it looks at nothing but its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from authz.decision import Deny, Reason, Refused, deny, echo
from authz.policy import RoutePolicy
from meter.identity.principal import Principal
from meter.network import Address, is_allowed
from meter.pricing.prices import Model

MAX_FALLBACKS: Final = 16
# No listed model has a longer id; suffixes are taken off one at a time, each by a copy of the rest.
MAX_MODEL_NAME_CHARS: Final = 256
ONLINE_SUFFIX: Final = ":online"
# Ways of routing to a listed model; `:free` and others are models of their own.
_ROUTING_SUFFIXES: Final = (ONLINE_SUFFIX, ":nitro", ":floor")


@dataclass(frozen=True, slots=True)
class Candidates:
    """The models that may serve a request, the asked one first."""

    models: list[Model]
    is_online: bool

    @property
    def asked(self) -> Model:
        """The model that the request names."""
        return self.models[0]


def admit(
    principal: Principal, policy: RoutePolicy, address: Address | None, now: datetime
) -> Deny | None:
    """Why this principal may not call this route from there now; None when it may."""
    if principal.ends_at is not None and principal.ends_at <= now:
        return deny(Reason.INVALID_API_KEY)
    if principal.is_suspended:
        return deny(Reason.ACCOUNT_SUSPENDED)
    if not is_allowed(address, principal.networks):
        return deny(Reason.ADDRESS_NOT_ALLOWED)
    if policy.scope not in principal.scopes:
        message = f"This needs the scope '{policy.scope}', which the API key does not have."
        return deny(Reason.INSUFFICIENT_SCOPE, message)
    return None


def authorize(
    principal: Principal, members: Mapping[str, Any], catalogue: Mapping[str, Model]
) -> Candidates | Deny:
    """The models of a request that its principal may use, or why not."""
    try:
        named = _named_models(members)
        models = [_permitted(principal, name, param, catalogue) for name, param in named]
    except Refused as refused:
        return refused.deny
    return Candidates(models, any(name.endswith(ONLINE_SUFFIX) for name, _ in named))


def _named_models(members: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The asked model and its fallbacks, each with the member that names it."""
    asked = members.get("model")
    if not isinstance(asked, str) or not asked:
        raise Refused(deny(Reason.INVALID_VALUE, "'model' must name a model.", "model"))
    fallbacks = members.get("models")
    if fallbacks is None:
        return [(asked, "model")]
    if (
        not isinstance(fallbacks, list)
        or len(fallbacks) > MAX_FALLBACKS
        or not all(isinstance(name, str) for name in fallbacks)
    ):
        message = f"'models' must be a list of at most {MAX_FALLBACKS} names of models."
        raise Refused(deny(Reason.INVALID_VALUE, message, "models"))
    return [(asked, "model"), *((name, "models") for name in fallbacks)]


def _permitted(
    principal: Principal, name: str, param: str, catalogue: Mapping[str, Model]
) -> Model:
    model = find_model(name, catalogue)
    if model is None:
        message = f"The model '{echo(name)}' does not exist."
        raise Refused(deny(Reason.MODEL_NOT_FOUND, message, param))
    if not all(_is_allowed(allowed, (model.id, name)) for allowed in principal.model_lists):
        message = f"This API key may not use the model '{echo(name)}'."
        raise Refused(deny(Reason.MODEL_NOT_ALLOWED, message, param))
    return model


def find_model(name: str, catalogue: Mapping[str, Model]) -> Model | None:
    """The listed model that a name means, without suffixes that only say how to route to it."""
    if len(name) > MAX_MODEL_NAME_CHARS:
        return None
    while (model := catalogue.get(name)) is None:
        suffix = next((end for end in _ROUTING_SUFFIXES if name.endswith(end)), None)
        if suffix is None:
            return None
        name = name.removesuffix(suffix)
    return model


def _is_allowed(patterns: frozenset[str], names: tuple[str, str]) -> bool:
    if not patterns.isdisjoint(names):
        return True
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
