"""From the credential that a request presents to the principal behind it, or why not."""

from authz.decision import Deny, Reason, deny
from authz.principals import PrincipalCache
from authz.request import AuthRequest
from meter.accounts import Principal
from meter.credentials import Pepper, parse

_SCHEME = "bearer "


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

    def __init__(self, pepper: Pepper, principals: PrincipalCache) -> None:
        self._pepper = pepper
        self._principals = principals

    async def authenticate(self, request: AuthRequest) -> Principal | Deny:
        """The principal, or a refusal. Raises StoreUnavailable when nobody can tell.

        What cannot be a key of ours is refused without a look-up.
        """
        presented = presented_credential(request)
        if isinstance(presented, Deny):
            return presented
        if parse(presented) is None:
            return deny(Reason.INVALID_API_KEY)
        principal = await self._principals.find_principal(self._pepper.digest(presented))
        return deny(Reason.INVALID_API_KEY) if principal is None else principal
