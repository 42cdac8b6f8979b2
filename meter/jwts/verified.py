"""The results of verifying a JWT. Pure."""

from dataclasses import dataclass
from datetime import datetime

from meter.scopes import Scope


@dataclass(frozen=True, slots=True)
class VerifiedPass:
    """A pass with a good signature that has not expired; it may be revoked, which the store knows.

    `ends_at` is `exp` plus the leeway: from then on the pass is refused.
    """

    pass_id: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """The identity in a JWT of another issuer. `subject` is unique only within `issuer_id`.

    `account_subject` distinguishes the accounts of the issuer. `plan_id` is the plan that the
    claims ask for, None where the issuer does not set plans. `first_plan_id` is the plan for an
    account that is created now, None for the default. `ends_at` is `exp` plus the leeway. `name`
    and `email` are for display only.
    """

    issuer_id: str
    subject: str
    account_subject: str
    scopes: frozenset[Scope]
    plan_id: str | None
    may_create: bool
    name: str | None
    ends_at: datetime
    issued_at: datetime
    first_plan_id: str | None = None
    email: str | None = None


Verified = VerifiedPass | VerifiedIdentity


@dataclass(frozen=True, slots=True)
class JwtVerification:
    """The result of a check; `reason` says why the JWT was refused, for operators only."""

    verified: Verified | None
    reason: str
