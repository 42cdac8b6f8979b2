"""Believing a JWT, or not: the one place where a JWT becomes an identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from meter.clock import Clock
from meter.jwts.fetching import DocumentSource
from meter.jwts.issuers import IssuerStore
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
    `email` are for display only.
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


@dataclass(frozen=True, slots=True)
class OwnIssuer:
    """We ourselves: the `iss` and `aud` of passes."""

    url: str
    audience: str


class OwnKeys(Protocol):
    """Where our published signing keys are kept."""

    async def load_public_keys(self) -> Mapping[str, Mapping[str, Any]]:
        """JWKs by `kid`. Raises StoreUnavailable."""
        ...


class JwtVerifier:
    """Believes passes and the JWTs of issuers that are enabled.

    `own` and `own_keys` None: no passes. Nothing runs in the background before the first JWT;
    `close()` ends what does.
    """

    def __init__(
        self,
        issuers: IssuerStore,
        documents: DocumentSource,
        clock: Clock,
        own: OwnIssuer | None = None,
        own_keys: OwnKeys | None = None,
    ) -> None:
        raise NotImplementedError

    async def verify(self, text: str) -> Verified | None:
        """The identity behind a JWT; None for anything that is not good, without a reason.

        Raises Outage where nobody can tell: StoreUnavailable, or IssuerUnavailable where the
        issuer's keys are too old and it does not answer.
        """
        return (await self.examine(text)).verified

    async def examine(self, text: str) -> Examination:
        """As `verify`, with the reason of a refusal, which never quotes the signature."""
        raise NotImplementedError

    async def close(self) -> None:
        """End fetches that are under way."""
        raise NotImplementedError
