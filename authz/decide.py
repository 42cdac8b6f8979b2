"""One request decided, in nine phases. The first refusal ends it; an outage is an exception.

1 route, 2 authenticate, 3 admit, 4 read the body, 5 authorize, 6 estimate, 7 limits, 8 hold,
9 look at the deadline again. Whoever a limit refused a moment ago is refused in phase 3 already,
because reading a body is the dearest thing that a caller can ask for.
"""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from authz.callers.authenticate import Authenticator
from authz.callers.authorize import Candidates, admit, authorize
from authz.callers.last_uses import LastUses
from authz.catalogue import CatalogueSnapshot
from authz.decision import Allow, AllowUnmetered, Decision, Deny, LimitStatus, Reason, deny
from authz.endpoints.body import Body
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.table import ENDPOINTS
from authz.limits.counting import Limits
from authz.metrics import Metrics
from authz.policy import RoutePolicy, route_policy
from authz.request import AuthRequest
from meter.clock import Clock
from meter.errors import Outage
from meter.holds.hold import (
    CountedTokens,
    HoldPlaced,
    HoldRefused,
    HoldRequest,
    Holds,
    Refusal,
    new_hold_id,
)
from meter.identity.principal import Principal
from meter.money import format_usd
from meter.network import Network, client_address
from meter.pricing.prices import Demand, estimate
from meter.sealing import SecretText

# Text has four bytes a token in English and fewer elsewhere.
LIKELY_BYTES_PER_TOKEN: Final = 2
# How old the store's judgement of a credential may be when the answer leaves: a process that was
# stopped in between must not let in what was revoked meanwhile.
MAX_JUDGEMENT_AGE_S: Final = 0.9
# With the age of what is remembered this stays below a second.
READMIT_AFTER_S: Final = 0.08
RETRY_AFTER_CONCURRENT_S: Final = 1.0
_CHANCE: Final = random.SystemRandom()

# From a hold id to what the provider may know it by; None where it is told nothing.
Tagger = Callable[[UUID], str | None]


class DeadlinePassed(Outage):
    """The decision came too late to be used."""


def no_tag(hold_id: UUID) -> None:
    """The tagger of an installation that takes no provider reports."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an operator may set about decisions. Behind proxies of `trusted_proxies` a request
    comes from where they say.

    A refusal of a credential is answered after whole steps of `refusal_step_s` and a part of
    another by chance: how long it took does not tell what was wrong with it.
    """

    floor_tokens: int
    max_body_bytes: int
    trusted_proxies: tuple[Network, ...] = ()
    refusal_step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is known of a request once its estimate can be made."""

    endpoint: Endpoint
    body: Body
    principal: Principal
    candidates: Candidates
    demand: Demand
    provider_key: SecretText
    limits: tuple[LimitStatus, ...]
    counted: CountedTokens
    request: AuthRequest
    policy: RoutePolicy
    admitted_at_s: float


class Decider:
    """The phases, with the parts that they need."""

    def __init__(
        self,
        authenticator: Authenticator,
        snapshot: CatalogueSnapshot,
        limits: Limits,
        holds: Holds,
        clock: Clock,
        metrics: Metrics,
        terms: Terms,
        tag: Tagger = no_tag,
        last_uses: LastUses | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._snapshot = snapshot
        self._limits = limits
        self._holds = holds
        self._clock = clock
        self._metrics = metrics
        self._terms = terms
        self._tag = tag
        self._last_uses = last_uses or LastUses()

    async def decide(self, request: AuthRequest, deadline_s: float) -> Decision:
        """Allow under a committed hold, or Deny. `deadline_s` is on the monotonic clock.

        Raises Outage when nobody can tell. However it ends otherwise, no hold stays behind.
        """
        began_s = self._clock.monotonic_s()
        decision = await self._decide(request, deadline_s)
        if isinstance(decision, Deny) and decision.reason is Reason.INVALID_API_KEY:
            await self._pace(began_s)
        return decision

    async def _decide(self, request: AuthRequest, deadline_s: float) -> Decision:
        policy = route_policy(request.extensions)
        if not policy.is_metered:
            return await self._decide_unmetered(request, policy)
        if not request.shows_body:
            return deny(Reason.BODY_NOT_SHOWN)
        asked = await self._understand(request, policy)
        return asked if isinstance(asked, Deny) else await self._hold(asked, deadline_s)

    async def _pace(self, began_s: float) -> None:
        """Wait until the next step after the beginning, and a part of another one.

        Timers are a millisecond coarse, so what was left to wait would still show by a fraction
        of one: chance hides it.
        """
        step_s = self._terms.refusal_step_s
        if step_s > 0:
            elapsed_s = self._clock.monotonic_s() - began_s
            left_s = math.ceil(elapsed_s / step_s) * step_s - elapsed_s
            await asyncio.sleep(left_s + _CHANCE.uniform(0, step_s))

    async def _admit(self, request: AuthRequest, policy: RoutePolicy) -> Principal | Deny:
        """Phases 2 and 3."""
        principal = await self._authenticator.authenticate(request, policy)
        if isinstance(principal, Deny):
            return principal
        address = None
        if principal.networks is not None:
            forwarded = request.values("x-forwarded-for")
            address = client_address(request.peer, forwarded, self._terms.trusted_proxies)
        return admit(principal, policy, address, self._clock.now()) or principal

    async def _decide_unmetered(
        self, request: AuthRequest, policy: RoutePolicy
    ) -> AllowUnmetered | Deny:
        principal = await self._admit(request, policy)
        if isinstance(principal, Deny):
            return principal
        answer = await self._limits.take_request(principal)
        if isinstance(answer, Deny):
            return answer
        # No hold judges the credential again: whoever slept meanwhile asks once more.
        principal = await self._admit(request, policy)
        if isinstance(principal, Deny):
            return principal
        self._last_uses.note(principal.credential_id, self._clock.now())
        scopes = tuple(sorted(principal.scopes))
        return AllowUnmetered(principal.account_id, principal.credential_id, scopes, answer)

    async def _understand(self, request: AuthRequest, policy: RoutePolicy) -> _Asked | Deny:
        """Phases 1 to 5, what phase 6 needs to know, and phase 7."""
        endpoint = route(request)
        if isinstance(endpoint, Deny):
            return endpoint
        admitted_at_s = self._clock.monotonic_s()
        principal = await self._admit(request, policy)
        if isinstance(principal, Deny):
            return principal
        if refused := self._limits.find_refusal(principal):
            return refused
        body = endpoint.read(request, self._terms.max_body_bytes)
        if isinstance(body, Deny):
            return body
        candidates = authorize(principal, body.members, self._snapshot.models)
        if isinstance(candidates, Deny):
            return candidates
        demand = endpoint.bound(body, candidates.is_online)
        if isinstance(demand, Demand) and demand.web_searches:
            demand = refuse_unpriced_search(demand, candidates)
        if isinstance(demand, Deny):
            return demand
        key = self._snapshot.provider_key
        taken = await self._limits.take(principal, candidates.models, demand)
        if isinstance(taken, Deny):
            return taken
        asked = (endpoint, body, principal, candidates, demand, key, *taken)
        return _Asked(*asked, request, policy, admitted_at_s)

    async def _hold(self, asked: _Asked, deadline_s: float) -> Decision:
        """Phases 6, 8 and 9."""
        request = to_hold_request(asked, self._terms.floor_tokens)
        judged_after_s = self._clock.monotonic_s()
        try:
            answer = await self._holds.place(request)
        except asyncio.CancelledError:
            # The store sees to it as well; releasing twice changes nothing.
            self.take_back(request.hold_id)
            raise
        if isinstance(answer, HoldRefused):
            return refusal_of_hold(answer)
        if refused := await self._readmit(asked, request.hold_id):
            return refused
        # A credential may have ended since the hold was placed: a late answer is none.
        if self._clock.monotonic_s() > min(deadline_s, judged_after_s + MAX_JUDGEMENT_AGE_S):
            self.take_back(request.hold_id)
            raise DeadlinePassed("the hold came after the deadline")
        self._last_uses.note(asked.principal.credential_id, self._clock.now())
        tag = self._tag(request.hold_id)
        return _allow(asked, answer, request.estimate.per_token_picos > 0, tag)

    async def _readmit(self, asked: _Asked, hold_id: UUID) -> Deny | None:
        """Ask again who calls, where that was a while ago: no hold judges secrets and JWTs."""
        if self._clock.monotonic_s() - asked.admitted_at_s < READMIT_AFTER_S:
            return None
        try:
            again = await self._admit(asked.request, asked.policy)
        except (asyncio.CancelledError, Outage):
            self.take_back(hold_id)
            raise
        if isinstance(again, Deny):
            self.take_back(hold_id)
            return again
        return None

    def take_back(self, hold_id: UUID) -> None:
        """Release a hold in the background: nobody will use the allowance that it was for."""
        self._metrics.late_holds.inc()
        self._holds.release_later([hold_id])


def route(request: AuthRequest) -> Endpoint | Deny:
    """The endpoint of a request. Query strings are refused: nothing in them is priced."""
    path, question_mark, _ = request.path.partition("?")
    endpoint = ENDPOINTS.get(path)
    if endpoint is None or request.method != "POST":
        return deny(Reason.ROUTE_NOT_FOUND)
    return deny(Reason.QUERY_NOT_ALLOWED) if question_mark else endpoint


def refuse_unpriced_search(demand: Demand, candidates: Candidates) -> Demand | Deny:
    """A web search is bounded only where the catalogue has a price for it."""
    if all(model.price.web_search_picos > 0 for model in candidates.models):
        return demand
    message = "Web search has no listed price with this model, so its cost cannot be bounded."
    return deny(Reason.COST_UNBOUNDED, message, "model" if candidates.is_online else "plugins")


def to_hold_request(asked: _Asked, floor_tokens: int) -> HoldRequest:
    """What to set aside for a request (phase 6), and what else the store judges it by."""
    principal = asked.principal
    bound = estimate(asked.demand, asked.candidates.models, principal.markup_bps, floor_tokens)
    return HoldRequest(
        hold_id=new_hold_id(),
        account_id=principal.account_id,
        credential_id=principal.credential_id,
        model_id=asked.candidates.asked.id,
        endpoint=asked.endpoint.name,
        estimate=bound,
        request_id=asked.request.request_uuid,
        pass_id=principal.pass_id,
        account_concurrent=principal.account_rates.concurrent_requests,
        key_concurrent=principal.key_rates.concurrent_requests,
        counted=asked.counted,
    )


def refusal_of_hold(refused: HoldRefused) -> Deny:
    """What a client is told when no hold could be placed."""
    if refused.reason is Refusal.CREDENTIAL_ENDED:
        return deny(Reason.INVALID_API_KEY)
    if refused.reason is Refusal.ACCOUNT_SUSPENDED:
        return deny(Reason.ACCOUNT_SUSPENDED)
    if refused.reason is Refusal.TOO_MANY_CONCURRENT:
        return deny(Reason.TOO_MANY_CONCURRENT, retry_after_s=RETRY_AFTER_CONCURRENT_S)
    if refused.reason is Refusal.BUDGET_EXCEEDED:
        return deny(
            Reason.BUDGET_EXCEEDED,
            f"This request may cost up to {format_usd(refused.needed_picos)} USD and "
            f"{format_usd(max(0, refused.available_picos))} USD is left of the budget of this key "
            "or pass. Lower max_tokens, wait for the next period, or ask for a larger budget.",
        )
    return deny(
        Reason.INSUFFICIENT_CREDITS,
        f"This request may cost up to {format_usd(refused.needed_picos)} USD and "
        f"{format_usd(refused.available_picos)} USD is available. "
        "Add credit, or lower max_tokens or the length of the prompt.",
    )


def reply_limit(granted_tokens: int, demand: Demand, candidates: Candidates) -> int:
    """The limit to write into a body: what the hold covers, less what cannot fit anyway.

    Some providers refuse a limit that does not fit into the context beside the prompt. Any limit
    up to the granted one keeps the bound, so a likely length of the prompt will do here.
    """
    context = min(model.context_length for model in candidates.models)
    likely_prompt = min(demand.prompt_tokens // LIKELY_BYTES_PER_TOKEN, context // 2)
    return max(1, min(granted_tokens, context - likely_prompt))


def _allow(asked: _Asked, placed: HoldPlaced, has_token_price: bool, tag: str | None) -> Allow:
    limit = None
    if asked.demand.completion_tokens is None and has_token_price:
        limit = reply_limit(placed.max_tokens, asked.demand, asked.candidates)
    return Allow(
        hold_id=placed.hold_id,
        account_id=asked.principal.account_id,
        credential_id=asked.principal.credential_id,
        model_id=asked.candidates.asked.id,
        endpoint=asked.endpoint.name,
        provider_key=asked.provider_key,
        edits=asked.endpoint.edits(asked.body, limit, tag),
        limits=asked.limits,
        is_streaming=asked.body.members.get("stream") is True,
    )
