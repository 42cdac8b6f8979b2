"""The policy of a route, set in Envoy's configuration and never by a client.

Envoy hands `context_extensions` of the matched route to the check (docs/envoy-for-platforms.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from meter.errors import Outage
from meter.scopes import Scope

ACCOUNT_HEADER: Final = "x-tollkeeper-account"


class RouteMisconfigured(Outage):
    """The context extensions of a route are wrong, so no request passes there."""


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """The policy for the requests of one route.

    Their principal must have `scope`. Without metering nothing is held or charged, and no
    provider's key is given out. `takes_account_header` is for routes that only our own services
    can reach: they name the account in a header. `trusts_certificates` says that the listener
    verifies client certificates; without it, certificates are ignored. `partial_body_bytes` is
    how much of a body the check sees at most, where a second check sees all of a longer one; 0
    where every check sees the whole body.
    """

    scope: Scope = Scope.INFERENCE
    is_metered: bool = True
    takes_account_header: bool = False
    trusts_certificates: bool = False
    partial_body_bytes: int = 0


DEFAULT_POLICY: Final = RoutePolicy()
_MEANINGS: Final = {
    "metering": {"on": True, "off": False},
    "account-from": {"credential": False, "header": True},
    "client-certificates": {"ignored": False, "verified": True},
}
PARTIAL_BODY: Final = "partial-body"
MIN_PARTIAL_BODY_BYTES: Final = 16 * 2**10
MAX_PARTIAL_BODY_BYTES: Final = 2**20
_NAMES: Final = frozenset({"scope", PARTIAL_BODY, *_MEANINGS})


def route_policy(extensions: Mapping[str, str]) -> RoutePolicy:
    """Return the policy that a route's context extensions ask for.

    Raises RouteMisconfigured for a name or value that is not known.
    """
    return _read(frozenset(extensions.items())) if extensions else DEFAULT_POLICY


@lru_cache(maxsize=1_024)
def _read(extensions: frozenset[tuple[str, str]]) -> RoutePolicy:
    found = dict(extensions)
    if unknown := found.keys() - _NAMES:
        raise RouteMisconfigured(f"the route has unknown context extensions: {sorted(unknown)}")
    try:
        scope = Scope(found.get("scope", Scope.INFERENCE))
        metering, account, certificates = (
            meanings[found.get(name, next(iter(meanings)))] for name, meanings in _MEANINGS.items()
        )
        partial = int(found.get(PARTIAL_BODY, 0))
    except (KeyError, ValueError) as error:
        raise RouteMisconfigured(f"a context extension has an unknown value: {error}") from None
    if partial and not MIN_PARTIAL_BODY_BYTES <= partial <= MAX_PARTIAL_BODY_BYTES:
        raise RouteMisconfigured(
            f"{PARTIAL_BODY} must be {MIN_PARTIAL_BODY_BYTES} to {MAX_PARTIAL_BODY_BYTES} bytes"
        )
    if metering and scope is not Scope.INFERENCE:
        raise RouteMisconfigured("a metered route asks for the scope 'inference'")
    return RoutePolicy(scope, metering, account, certificates, partial)
