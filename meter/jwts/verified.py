"""What comes of a JWT that was looked at. Pure."""

from dataclasses import dataclass
from datetime import datetime

from meter.scopes import Scope


@dataclass(frozen=True, slots=True)
class VerifiedPass:
    """A JWT of ours that is signed and not over; whether it is revoked is for the books to say.

    `ends_at` is its `exp` and the leeway: from then on it is refused.
    """

    pass_id: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """Whom a JWT of another issuer speaks for. `subject` means nothing without `issuer_id`.

    `account_subject` is what tells the issuer's accounts apart. `plan_id` is the plan that the
    claims ask for, None where plans are not the issuer's business; `first_plan_id` is the one for
    an account made now, None for the usual one. `ends_at` is its `exp` and the leeway. `name` and
    `email` are for people only.
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
class Examination:
    """What came of a JWT; `reason` says why it was refused, for operators only."""

    verified: Verified | None
    reason: str
