"""The parts of a decision, as they are, with somebody who looks on and notes how far it came.

What has effects (limits, holds, accounts at first sight) is tried out instead.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from authz.callers.authenticate import Authenticator
from authz.decision import Deny, LimitStatus
from authz.explain.explanation import Phase
from authz.limits.answer import ADMITTED, LimitAnswer, Limiter, Taking
from authz.limits.counting import Limits, Rules, Taken
from authz.metrics import Metrics
from authz.policy import RoutePolicy
from authz.request import AuthRequest
from meter.holds.hold import HoldAnswer, HoldRequest
from meter.identity.credential_resolver import Identifier, Verifier
from meter.identity.credential_state import Means
from meter.identity.principal import Principal, Principals
from meter.jwts.verified import Examination, Verified, VerifiedIdentity
from meter.limits.limits import Limit
from meter.pricing.prices import Demand, Model


class Examiner(Protocol):
    """`meter.jwts.verifying.JwtVerifier` is one."""

    async def examine(self, text: str) -> Examination:
        """What a JWT says, and why it is refused where it is."""
        ...


class Peeking(Protocol):
    """`authz.limits.redis_limiter.RedisLimiter` is one."""

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """A refusal that is certain; None where one must ask."""
        ...

    async def peek(self, takings: Sequence[Taking]) -> LimitAnswer | None:
        """What `take` would say, without counting; None while Redis is away."""
        ...


class Tried(Protocol):
    """`meter.holds.trial.Trial` is one."""

    async def find_means(self, request: HoldRequest) -> Means:
        """What a hold is judged by."""
        ...

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """What would come of a hold."""
        ...


@dataclass(slots=True)
class LookUp:
    """How a principal was looked for: by one of these."""

    digest: bytes | None = field(default=None, repr=False)
    pass_id: str | None = None
    identity: VerifiedIdentity | None = None
    certificate: str | None = None
    account_id: str | None = None


@dataclass(slots=True)
class Seen:
    """How far a decision came, and what was found on the way."""

    phase: Phase = Phase.ROUTE
    look_up: LookUp | None = None
    examination: Examination | None = None
    principal: Principal | None = None
    models: Sequence[Model] = ()
    demand: Demand | None = None
    takings: Sequence[Taking] = ()
    limit_answer: LimitAnswer | None = ADMITTED
    hold: HoldRequest | None = None
    means: Means | None = None
    hold_answer: HoldAnswer | None = None


class WatchedAuthenticator(Authenticator):
    """Notes that phase 2 began, and whom it found."""

    def __init__(self, identifier: Identifier, principals: Principals, seen: Seen) -> None:
        super().__init__(identifier, principals)
        self._seen = seen

    async def authenticate(self, request: AuthRequest, policy: RoutePolicy) -> Principal | Deny:
        """As it is."""
        self._seen.phase = max(self._seen.phase, Phase.AUTHENTICATE)
        found = await super().authenticate(request, policy)
        if isinstance(found, Principal):
            self._seen.principal = found
            self._seen.phase = max(self._seen.phase, Phase.ADMIT)
        return found


class WatchedVerifier(Verifier):
    """Notes why a JWT was refused."""

    def __init__(self, examiner: Examiner, seen: Seen) -> None:
        self._examiner = examiner
        self._seen = seen

    async def verify(self, text: str) -> Verified | None:
        """As it is."""
        self._seen.examination = await self._examiner.examine(text)
        return self._seen.examination.verified


class WatchedPrincipals(Principals):
    """Notes what was looked for."""

    def __init__(self, principals: Principals, seen: Seen) -> None:
        self._principals = principals
        self._seen = seen

    async def find_by_secret(self, digest: bytes) -> Principal | None:
        """As it is, like all of these."""
        return await self._find(LookUp(digest=digest), self._principals.find_by_secret(digest))

    async def find_by_pass(self, pass_id: str) -> Principal | None:
        """By `jti`."""
        return await self._find(LookUp(pass_id=pass_id), self._principals.find_by_pass(pass_id))

    async def find_by_identity(self, identity: VerifiedIdentity) -> Principal | None:
        """By issuer and subject."""
        look_up = LookUp(identity=identity)
        return await self._find(look_up, self._principals.find_by_identity(identity))

    async def find_by_certificate(self, name: str) -> Principal | None:
        """By the name in a certificate."""
        look_up = LookUp(certificate=name)
        return await self._find(look_up, self._principals.find_by_certificate(name))

    async def find_issued(self, account_id: str) -> Principal | None:
        """By account."""
        look_up = LookUp(account_id=account_id)
        return await self._find(look_up, self._principals.find_issued(account_id))

    async def _find(self, look_up: LookUp, answer: Awaitable[Principal | None]) -> Principal | None:
        self._seen.look_up = look_up
        return await answer


class PeekingLimiter:
    """A limiter that looks and does not count."""

    def __init__(self, limiter: Peeking, seen: Seen) -> None:
        self._limiter = limiter
        self._seen = seen

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """As it is."""
        return self._limiter.find_refusal(limits)

    async def take(self, takings: Sequence[Taking]) -> LimitAnswer:
        """What would be said; while nobody can tell, that there is room."""
        self._seen.takings = takings
        self._seen.limit_answer = await self._limiter.peek(takings)
        return self._seen.limit_answer or ADMITTED


class WatchedLimits(Limits):
    """Notes that phase 3 is over, and that phase 7 began."""

    def __init__(self, limiter: Limiter, rules: Rules, metrics: Metrics, seen: Seen) -> None:
        super().__init__(limiter, rules, metrics)
        self._seen = seen

    def find_refusal(self, principal: Principal) -> Deny | None:
        """As it is."""
        refusal = super().find_refusal(principal)
        if refusal is None:
            self._seen.phase = Phase.BODY
        return refusal

    async def take(
        self, principal: Principal, models: Sequence[Model], demand: Demand
    ) -> Taken | Deny:
        """As it is."""
        self._seen.models, self._seen.demand = models, demand
        self._seen.phase = Phase.LIMITS
        return await super().take(principal, models, demand)

    async def take_request(self, principal: Principal) -> tuple[LimitStatus, ...] | Deny:
        """As it is."""
        self._seen.phase = Phase.LIMITS
        return await super().take_request(principal)


class TriedHolds:
    """Implements `meter.holds.hold.Holds` in a trial: nothing is ever held."""

    def __init__(self, trial: Tried, seen: Seen) -> None:
        self._trial = trial
        self._seen = seen

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """What would come of it."""
        self._seen.phase, self._seen.hold = Phase.HOLD, request
        self._seen.means = await self._trial.find_means(request)
        self._seen.hold_answer = await self._trial.place(request)
        return self._seen.hold_answer

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """There is nothing to release."""
        return 0

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """There is nothing to release."""
