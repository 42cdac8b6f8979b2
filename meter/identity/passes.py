"""Passes: the short-lived JWTs that we issue, and their terms. Pure.

A pass acts for a credential, and may never do more than it. Each pass is stored,
so that it can be revoked before it expires.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from meter.errors import InvalidRequest, NotPermitted
from meter.identity.principal import CredentialKind, Principal
from meter.scopes import ADMIN_SCOPES, DEFAULT_SCOPES, Scope

DEFAULT_ISSUER_URL: Final = "http://127.0.0.1:8080"
DEFAULT_AUDIENCE: Final = "tollkeeper"
DEFAULT_PASS_LIFETIME_S: Final = 900
MIN_PASS_LIFETIME_S: Final = 60
MAX_PASS_LIFETIME_S: Final = 86_400
# For each credential: nobody needs more, and an attacker could fill the database with them.
MAX_LIVE_PASSES: Final = 10_000
# A pass has these scopes only if the order names them.
SCOPES_ON_REQUEST: Final = ADMIN_SCOPES | {Scope.KEYS_WRITE, Scope.BILLING_WRITE}
PASS_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class PassOrder:
    """The terms that a caller asks for; None means the default."""

    lifetime_s: int = DEFAULT_PASS_LIFETIME_S
    scopes: frozenset[Scope] | None = None
    allowed_models: tuple[str, ...] | None = None
    budget_picos: int | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass without its JWT, which is not stored. `id` is the `jti`."""

    id: str
    credential_id: str
    account_id: str
    scopes: frozenset[Scope]
    allowed_models: tuple[str, ...] | None
    budget_picos: int | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    spent_picos: int = 0


def new_pass_id() -> str:
    """Return a new random `jti`."""
    return secrets.token_urlsafe(PASS_ID_BYTES)


def draw_up(principal: Principal, order: PassOrder, created_by: str, now: datetime) -> Pass:
    """Return the pass that a principal gets for an order; it never exceeds the principal.

    Times are in whole seconds, as in a JWT. Raises NotPermitted where the principal is a pass, is
    suspended or lacks a scope, and InvalidRequest where the principal ends too soon for a pass.
    """
    if principal.pass_id is not None:
        raise NotPermitted("a pass cannot be exchanged for another; use the key")
    if principal.is_suspended:
        raise NotPermitted("the user is suspended")
    starts_at = now.replace(microsecond=0)
    may = principal.scopes
    if principal.kind is not CredentialKind.KEY:
        # The scopes of a key are stored. Those of a foreign JWT end with it, so a pass that could
        # outlive the JWT gets default scopes at most.
        may &= DEFAULT_SCOPES
    scopes = may - SCOPES_ON_REQUEST if order.scopes is None else order.scopes
    beyond = sorted(scopes - may)
    if beyond:
        raise NotPermitted(f"the credential itself lacks the scope {beyond[0]}")
    if not scopes:
        raise NotPermitted("the credential has no scope that a pass could have")
    return Pass(
        id=new_pass_id(),
        credential_id=principal.credential_id,
        account_id=principal.account_id,
        scopes=scopes,
        allowed_models=order.allowed_models,
        budget_picos=order.budget_picos,
        created_by=created_by,
        created_at=starts_at,
        expires_at=_end(principal, order.lifetime_s, starts_at),
    )


def _end(principal: Principal, lifetime_s: int, starts_at: datetime) -> datetime:
    asked = starts_at + timedelta(seconds=lifetime_s)
    if principal.ends_at is None or asked <= principal.ends_at:
        return asked
    last = principal.ends_at.replace(microsecond=0)
    if last <= starts_at:
        raise InvalidRequest("the credential ends too soon for a pass")
    return last
