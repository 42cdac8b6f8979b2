"""Authentication of callers: an operator with the operator token, or any other credential.

Every invalid credential gets the same reply, whatever its fault (rule R12). A valid credential that
lacks the scope of a route, or is used from an address that it does not allow, gets the reason.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from meter.api.problems import ProblemError
from meter.api.services import ApiDependencies, FromIdentifier, FromOperators, FromOutside
from meter.audit.events import Actor
from meter.identity.presented import ConflictingCredentials, find_credential, without_scheme
from meter.identity.principal import Principal
from meter.jwts.reading import MAX_JWT_CHARS
from meter.network import client_address, is_allowed
from meter.scopes import Scope

MAX_CREDENTIAL_CHARS: Final = MAX_JWT_CHARS
_HEADERS: Final = ("authorization", "x-api-key")
_READING: Final = frozenset({"GET", "HEAD"})
_REALM: Final = 'Bearer realm="tollkeeper"'

# These only describe the schemes in the OpenAPI document. The checks are below.
_administrator_scheme = HTTPBearer(
    scheme_name="administrator",
    description="The operator token (`operator.token` in the state folder), or an API key or JWT "
    "with the scope `admin:read` for reading and `admin:write` for everything else.",
    auto_error=False,
)
_key_scheme = HTTPBearer(
    scheme_name="apiKey",
    description="An API key of the account (`tk-...`), or a JWT that acts for it.",
    auto_error=False,
)
_key_header_scheme = APIKeyHeader(
    name="x-api-key",
    scheme_name="apiKeyHeader",
    description="The same credential in a header of its own.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request, and its name in the audit log."""

    principal: Principal
    actor: Actor

    @property
    def account_id(self) -> str:
        """Return the id of the account that the caller acts for."""
        return self.principal.account_id

    @property
    def credential_id(self) -> str:
        """Return the id of the credential; for a pass, of the credential it was made with."""
        return self.principal.credential_id


async def identify_caller(
    request: Request, identifier: FromIdentifier, outside: FromOutside
) -> Caller:
    """Return the caller that presents a key or JWT.

    A suspended account is a caller too: it may still read its own data.
    Raises ProblemError: 401 for an invalid credential, 403 for an address that is not allowed.
    """
    text = _find_credential(request)
    principal = None if text is None else await identifier.identify(text)
    if principal is None:
        raise _unauthorized()
    return _admit(request, outside, principal)


async def identify_caller_if_any(
    request: Request, identifier: FromIdentifier, outside: FromOutside
) -> Caller | None:
    """Return the caller that presents a key or JWT; None for anybody else.

    For routes that anybody may read: clients send some text as a key even where none is needed, so
    a faulty credential is none.
    """
    try:
        return await identify_caller(request, identifier, outside)
    except ProblemError:
        return None


async def identify_administrator(
    request: Request,
    operators: FromOperators,
    identifier: FromIdentifier,
    outside: FromOutside,
) -> Actor:
    """Return the administrator that calls: reading needs `admin:read`, all else `admin:write`.

    Raises ProblemError: 401 for an invalid credential, 403 for one without the right.
    """
    text = _find_credential(request)
    if text is None:
        raise _unauthorized()
    # An operator token is accepted as a bearer token only; a key may come in either header.
    if without_scheme(request.headers.get("authorization", "")) == text:
        operator = await operators.find_operator(text)
        if operator is not None:
            return Actor(f"operator:{operator}")
    principal = await identifier.identify(text)
    if principal is None:
        raise _unauthorized()
    caller = _admit(request, outside, principal)
    _require_scope(caller, Scope.ADMIN_READ if request.method in _READING else Scope.ADMIN_WRITE)
    if principal.is_suspended:
        raise ProblemError(403, "account_suspended", "the account is suspended")
    return caller.actor


def caller_with(scope: Scope) -> Callable[[Caller], Awaitable[Caller]]:
    """Return a dependency for callers with this scope; others get 403 `insufficient_scope`."""

    async def require(caller: Annotated[Caller, Depends(identify_caller)]) -> Caller:
        _require_scope(caller, scope)
        return caller

    return require


def actor_of(principal: Principal) -> Actor:
    """Return the audit log's name of a credential: `key:<id>`, `identity:<id>`, `pass:<jti>`."""
    if principal.pass_id is not None:
        return Actor(f"pass:{principal.pass_id}", principal.account_id)
    return Actor(f"{principal.kind}:{principal.credential_id}", principal.account_id)


def _admit(request: Request, outside: ApiDependencies, principal: Principal) -> Caller:
    peer = "" if request.client is None else request.client.host
    forwarded_for = request.headers.getlist("x-forwarded-for")
    address = client_address(peer, forwarded_for, outside.trusted_proxies)
    if not is_allowed(address, principal.networks):
        raise ProblemError(
            403, "address_not_allowed", "this credential may not be used from this address"
        )
    return Caller(principal, actor_of(principal))


def _require_scope(caller: Caller, scope: Scope) -> None:
    if scope in caller.principal.scopes:
        return
    challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
    raise ProblemError(
        403,
        "insufficient_scope",
        f"this route needs the scope '{scope}', which the credential does not have",
        {"WWW-Authenticate": challenge},
    )


def _find_credential(request: Request) -> str | None:
    """Return the one credential presented, None for none. Raises ProblemError 400 for several."""
    try:
        credential = find_credential(*(request.headers.getlist(name) for name in _HEADERS))
    except ConflictingCredentials:
        raise ProblemError(
            400,
            "conflicting_credentials",
            "more than one credential was given; send exactly one",
        ) from None
    authorization = request.headers.get("authorization", "").strip()
    if authorization and without_scheme(authorization) == authorization:
        # Stricter than authz: here a key in `authorization` needs the scheme Bearer.
        return None
    return credential if credential and len(credential) <= MAX_CREDENTIAL_CHARS else None


def _unauthorized() -> ProblemError:
    return ProblemError(
        401, "unauthorized", "a valid credential is required", {"WWW-Authenticate": _REALM}
    )


AdministratorsOnly = [Depends(_administrator_scheme), Depends(identify_administrator)]
FromAdministrator = Annotated[Actor, Depends(identify_administrator)]
FromCaller = Annotated[Caller, Depends(identify_caller)]
FromCallerIfAny = Annotated[Caller | None, Depends(identify_caller_if_any)]
FromReader = Annotated[Caller, Depends(caller_with(Scope.USAGE_READ))]
FromKeyKeeper = Annotated[Caller, Depends(caller_with(Scope.KEYS_WRITE))]
FromBuyer = Annotated[Caller, Depends(caller_with(Scope.BILLING_WRITE))]
WithKey = [Depends(_key_scheme), Depends(_key_header_scheme)]
