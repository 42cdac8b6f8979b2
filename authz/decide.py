"""One request decided, in eight phases. The first refusal ends it; an outage is an exception.

1 route, 2 authenticate, 3 limits, 4 read the body, 5 authorize, 6 estimate, 7 hold,
8 look at the deadline again. Limits come before the body, because reading one is the dearest
thing that a caller can ask for: a request that is refused later has counted as a request.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from authz.authenticate import Authenticator
from authz.authorize import Candidates, authorize
from authz.body import Body, edit_body, read_body
from authz.catalogue import CatalogueSnapshot
from authz.decision import Allow, Decision, Deny, LimitStatus, Reason, deny
from authz.demand import EMBEDDINGS, bound_demand
from authz.limits import RequestLimiter
from authz.metrics import Metrics
from authz.request import AuthRequest
from meter.accounts import Principal
from meter.clock import Clock
from meter.credentials import SecretText
from meter.errors import Outage
from meter.holds import HoldPlaced, HoldRefused, HoldRequest, Refusal, new_hold_id
from meter.money import format_usd
from meter.ports import Holds
from meter.pricing import Demand, estimate

# Rule R10: exactly these reach a provider. The router of Envoy has the same list.
ENDPOINTS: Final = {
    prefix + path: endpoint
    for prefix in ("/v1/", "/api/v1/llm/")
    for path, endpoint in (
        ("chat/completions", "chat_completions"),
        ("completions", "completions"),
        ("embeddings", EMBEDDINGS),
    )
}
# Text has four bytes a token in English and fewer elsewhere.
LIKELY_BYTES_PER_TOKEN: Final = 2

# From a hold id to what the provider may know it by; None where it is told nothing.
Tagger = Callable[[UUID], str | None]


class DeadlinePassed(Outage):
    """The decision came too late to be used."""


def no_tag(hold_id: UUID) -> None:
    """The tagger of an installation that takes no provider reports."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an operator may set about decisions."""

    floor_tokens: int
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is known of a request once its estimate can be made."""

    endpoint: str
    body: Body
    principal: Principal
    candidates: Candidates
    demand: Demand
    provider_key: SecretText
    limit: LimitStatus | None
    request_id: UUID | None


class Decider:
    """The phases, with the parts that they need."""

    def __init__(
        self,
        authenticator: Authenticator,
        snapshot: CatalogueSnapshot,
        limiter: RequestLimiter,
        holds: Holds,
        clock: Clock,
        metrics: Metrics,
        terms: Terms,
        tag: Tagger = no_tag,
    ) -> None:
        self._authenticator = authenticator
        self._snapshot = snapshot
        self._limiter = limiter
        self._holds = holds
        self._clock = clock
        self._metrics = metrics
        self._terms = terms
        self._tag = tag

    async def decide(self, request: AuthRequest, deadline_s: float) -> Decision:
        """Allow under a committed hold, or Deny. `deadline_s` is on the monotonic clock.

        Raises Outage when nobody can tell. However it ends otherwise, no hold stays behind.
        """
        asked = await self._understand(request)
        return asked if isinstance(asked, Deny) else await self._hold(asked, deadline_s)

    async def _understand(self, request: AuthRequest) -> _Asked | Deny:
        """Phases 1 to 5, and what phase 6 needs to know."""
        endpoint = route(request)
        if isinstance(endpoint, Deny):
            return endpoint
        principal = await self._authenticator.authenticate(request)
        if isinstance(principal, Deny):
            return principal
        if principal.is_suspended:
            return deny(Reason.ACCOUNT_SUSPENDED)
        limit = await self._limiter.take(principal)
        if limit is not None and limit.retry_after_s is not None:
            return deny(Reason.RATE_LIMIT_EXCEEDED, limit=limit)
        body = read_body(request, self._terms.max_body_bytes)
        if isinstance(body, Deny):
            return body
        candidates = authorize(principal, body.members, self._snapshot.models)
        if isinstance(candidates, Deny):
            return candidates
        demand = bound_demand(endpoint, body, candidates.is_online)
        if isinstance(demand, Demand) and demand.web_searches:
            demand = refuse_unpriced_search(demand, candidates)
        if isinstance(demand, Deny):
            return demand
        key = self._snapshot.provider_key
        request_id = request.request_uuid
        return _Asked(endpoint, body, principal, candidates, demand, key, limit, request_id)

    async def _hold(self, asked: _Asked, deadline_s: float) -> Decision:
        """Phases 6 to 8."""
        bound = estimate(
            asked.demand,
            asked.candidates.models,
            asked.principal.markup_bps,
            self._terms.floor_tokens,
        )
        request = HoldRequest(
            hold_id=new_hold_id(),
            account_id=asked.principal.account_id,
            credential_id=asked.principal.credential_id,
            model_id=asked.candidates.asked.id,
            endpoint=asked.endpoint,
            estimate=bound,
            request_id=asked.request_id,
        )
        try:
            answer = await self._holds.place(request)
        except asyncio.CancelledError:
            # The store sees to it as well; releasing twice changes nothing.
            self.take_back(request.hold_id)
            raise
        if isinstance(answer, HoldRefused):
            return refusal_of_hold(answer)
        if self._clock.monotonic_s() > deadline_s:
            self.take_back(request.hold_id)
            raise DeadlinePassed("the hold came after the deadline")
        tag = self._tag(request.hold_id)
        return _allow(asked, answer, bound.per_token_picos > 0, tag)

    def take_back(self, hold_id: UUID) -> None:
        """Release a hold in the background: nobody will use the allowance that it was for."""
        self._metrics.late_holds.inc()
        self._holds.release_later([hold_id])


def route(request: AuthRequest) -> str | Deny:
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


def refusal_of_hold(refused: HoldRefused) -> Deny:
    """What a client is told when no hold could be placed."""
    if refused.reason is Refusal.CREDENTIAL_ENDED:
        return deny(Reason.INVALID_API_KEY)
    if refused.reason is Refusal.ACCOUNT_SUSPENDED:
        return deny(Reason.ACCOUNT_SUSPENDED)
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
        endpoint=asked.endpoint,
        provider_key=asked.provider_key,
        edits=edit_body(asked.body, limit, tag),
        limit=asked.limit,
        is_streaming=asked.body.members.get("stream") is True,
    )
