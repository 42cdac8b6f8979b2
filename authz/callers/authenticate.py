"""From the credential that a request presents to the principal behind it, or why not."""

from typing import Final

from authz.decision import Deny, Reason, deny
from authz.policy import ACCOUNT_HEADER, RoutePolicy
from authz.request import AuthRequest
from meter.identity.credential_resolver import Identifier
from meter.identity.principal import Principal, Principals
from meter.jwts.terms import is_plain

MAX_ACCOUNT_CHARS: Final = 128
_SCHEME: Final = "bearer "


def presented_credential(request: AuthRequest) -> str | Deny:
    """The one credential of a request.

    Two different ones are a refusal, not a choice: another reader might choose the other. A
    comma means that several headers were joined on the way; no credential of ours has one.
    """
    authorizations = request.values("authorization")
    keys = request.values("x-api-key")
    if len(authorizations) > 1 or len(keys) > 1 or any("," in v for v in authorizations + keys):
        return deny(Reason.CONFLICTING_CREDENTIALS)
    presented = {_bearer(value) for value in authorizations} | {key.strip() for key in keys}
    presented.discard("")
    if len(presented) > 1:
        return deny(Reason.CONFLICTING_CREDENTIALS)
    return presented.pop() if presented else deny(Reason.MISSING_API_KEY)


def _bearer(authorization: str) -> str:
    """The credential after `Bearer`; another scheme is no key of ours, and stays as it is."""
    if authorization[: len(_SCHEME)].lower() == _SCHEME:
        return authorization[len(_SCHEME) :].strip()
    return "" if authorization.strip().lower() == "bearer" else authorization.strip()


class Authenticator:
    """Finds the principal of a request."""

    def __init__(self, identifier: Identifier, principals: Principals) -> None:
        self._identifier = identifier
        self._principals = principals

    async def authenticate(self, request: AuthRequest, policy: RoutePolicy) -> Principal | Deny:
        """The principal, or a refusal. Raises Outage when nobody can tell.

        A credential goes before a certificate: in a mesh every request has one of those.
        """
        if policy.takes_account_header:
            return _or_refused(await self._named_account(request))
        presented = presented_credential(request)
        if isinstance(presented, str):
            return _or_refused(await self._identifier.identify(presented))
        is_missing = presented.reason is Reason.MISSING_API_KEY
        if is_missing and policy.trusts_certificates and request.certificate:
            return _or_refused(await self._certified(request.certificate))
        return presented

    async def _certified(self, name: str) -> Principal | None:
        """What the store cannot even hold is nobody's name, and no outage."""
        return await self._principals.find_by_certificate(name) if is_plain(name) else None

    async def _named_account(self, request: AuthRequest) -> Principal | None:
        named = request.values(ACCOUNT_HEADER)
        if len(named) != 1 or len(named[0]) > MAX_ACCOUNT_CHARS or not is_plain(named[0]):
            return None
        return await self._principals.find_issued(named[0])


def _or_refused(principal: Principal | None) -> Principal | Deny:
    return deny(Reason.INVALID_API_KEY) if principal is None else principal
