"""The parts of a dry run: a trace that keeps each step, and services without effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from authz.limits.answer import ADMITTED, LimitAnswer, LimitUse
from authz.limits.redis_limiter import RedisLimiter
from authz.policy import RoutePolicy
from authz.routing.choice import Choice
from authz.trace import Phase, Trace
from meter.holds.dry_run import DryRun
from meter.holds.hold import HoldAnswer, HoldRequest
from meter.identity.credential_state import HoldFacts
from meter.identity.principal import Presented, Principal
from meter.limits.limits import Limit
from meter.pricing.prices import Demand, Estimate, Model


@dataclass(slots=True)
class DecisionTrace(Trace):
    """Keeps the last phase of a decision, and the results of the phases before."""

    phase: Phase = Phase.ROUTE
    policy: RoutePolicy | None = None
    endpoint: str | None = None
    presented: Presented | None = None
    principal: Principal | None = None
    models: Sequence[Model] = ()
    demand: Demand | None = None
    estimate: Estimate | None = None
    choice: Choice | None = None

    def begin(self, phase: Phase) -> None:
        """Keep the last phase that began."""
        self.phase = phase

    def note_policy(self, policy: RoutePolicy) -> None:
        """Keep the policy of the route."""
        self.policy = policy

    def note_endpoint(self, endpoint: str) -> None:
        """Keep the endpoint."""
        self.endpoint = endpoint

    def note_presented(self, presented: Presented) -> None:
        """Keep the form in which the principal is looked up."""
        self.presented = presented

    def note_principal(self, principal: Principal) -> None:
        """Keep the principal."""
        self.principal = principal

    def note_models(self, models: Sequence[Model]) -> None:
        """Keep the models."""
        self.models = models

    def note_choice(self, choice: Choice) -> None:
        """Keep the choice of the provider."""
        self.choice = choice

    def note_estimate(self, demand: Demand, estimate: Estimate) -> None:
        """Keep the upper bounds."""
        self.demand, self.estimate = demand, estimate


class DryRunLimiter:
    """Implements `authz.limits.answer.Limiter` without counting.

    `uses` and `answer` are those of the last call of `take`; `answer` is None when Redis could
    not be asked.
    """

    def __init__(self, limiter: RedisLimiter) -> None:
        self._limiter = limiter
        self.uses: Sequence[LimitUse] = ()
        self.answer: LimitAnswer | None = ADMITTED

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """Return the refusal that is certain, or None."""
        return self._limiter.find_refusal(limits)

    async def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """Return the answer that counting would give; admitted when Redis cannot be asked."""
        self.uses = uses
        self.answer = await self._limiter.peek(uses)
        return self.answer or ADMITTED


class DryRunHolds:
    """Implements `meter.holds.hold.Holds` in a transaction that is rolled back.

    `request`, `facts` and `answer` are those of the last call of `place`.
    """

    def __init__(self, dry_run: DryRun) -> None:
        self._dry_run = dry_run
        self.request: HoldRequest | None = None
        self.facts: HoldFacts | None = None
        self.answer: HoldAnswer | None = None

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Return the answer that placing the hold would give."""
        self.request = request
        # The facts first: the hold, once placed, counts in them.
        self.facts = await self._dry_run.find_hold_facts(request)
        self.answer = await self._dry_run.place(request)
        return self.answer

    async def find_available(self, account_id: str) -> int:
        """Return what new holds of the account may use."""
        return await self._dry_run.find_available(account_id)

    def expected_wait_s(self, account_id: str) -> float:
        """Return 0: an explanation is not shed."""
        return 0.0

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """Do nothing: the transaction is rolled back."""
        return 0

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """Do nothing: the transaction is rolled back."""
