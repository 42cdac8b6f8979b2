"""One decision, in nine phases. The first refusal ends it; an outage is an exception.

1. route: the route's policy, and the endpoint that method and path name;
2. authenticate: from the credential to the principal;
3. admit: the principal is live, has the route's scope and comes from an allowed address, no
   limit that refused it a moment ago refuses it still, and it is the turn of its account
   (before the body is read, because reading a body is the most expensive work that a caller can
   cause);
4. body: read strictly. Where the check has only the beginning of a longer body, the account must
   be able to pay for the cheapest request; then the whole body is asked for, and nothing is held;
5. authorize: the models exist, and the principal may use them;
6. estimate: the provider and its key, and the upper bound of the usage and of its cost;
7. limits: the request is counted in every limit that covers it;
8. hold: the estimate is set aside in Postgres, which judges credential and money once more;
9. deadline: the answer can still be used. A principal that was found a while ago is looked up
   again before.

Routes without metering go through 1, 2, 3, 7 and 9.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

from authz.callers.authenticate import Authenticator
from authz.callers.authorize import admit, authorize
from authz.callers.last_uses import LastUses
from authz.catalogue import CatalogueSnapshot
from authz.decision import Allow, AllowUnmetered, Decision, Deny, NeedsWholeBody, Reason, deny
from authz.endpoints.body import Body
from authz.endpoints.body_work import BodyWork, refusal_of_work
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.table import ENDPOINTS
from authz.endpoints.weight import SMALL_BODY_BYTES
from authz.limits.arriving_bodies import ArrivingBodies, Room, TooMuchWork
from authz.limits.counting import Limits
from authz.load import Load
from authz.metrics import Metrics
from authz.policy import (
    MIN_PARTIAL_BODY_BYTES,
    RouteMisconfigured,
    RoutePolicy,
    route_policy,
)
from authz.request import AuthRequest
from authz.routing.choice import Asked, Choice, choose, takes_default_path
from authz.routing.own_keys import OwnKeyCache
from authz.trace import NO_TRACE, Phase, Trace
from meter.clock import Clock
from meter.errors import Outage
from meter.holds.hold import HoldRefused, HoldRequest, Holds, Refusal, new_hold_id
from meter.identity.principal import Principal
from meter.money import format_usd
from meter.network import Network, client_address
from meter.pricing.prices import (
    MAX_FACTOR_BPS,
    Demand,
    Extra,
    Model,
    cheapest_charge,
    estimate,
    price_ceiling,
    raised_factor_bps,
)

# Text has four bytes a token in English and fewer elsewhere.
LIKELY_BYTES_PER_TOKEN: Final = 2
# The greatest age of the store's judgement of a credential when the answer leaves: a process that
# was stopped in between must not let in a credential that was revoked meanwhile.
MAX_JUDGEMENT_AGE_S: Final = 0.9
# A principal that was found longer ago is looked up again before the answer leaves. With the age
# of an entry of the principal cache this stays below the second that a revocation may take.
READMIT_AFTER_S: Final = 0.08
RETRY_AFTER_CONCURRENT_S: Final = 1.0
# Clients of Azure and of Anthropic name the version of an API so. Nothing in them is priced.
HARMLESS_PARAMETERS: Final = frozenset({"api-version", "beta"})
# The member that asks for a part without a listed price, how a message begins, and the price that
# a model must list.
UNPRICED: Final = {
    Extra.WEB_SEARCH: ("plugins", "Web search has", "web_search"),
    Extra.SOUND: ("messages.content", "Sound in a prompt has", "audio"),
    Extra.LONG_CACHE: ("cache_control", "A prompt cache of one hour has", "input_cache_write_1h"),
    Extra.SPOKEN_REPLY: ("modalities", "A spoken reply has", "audio_output"),
    Extra.PICTURE_REPLY: ("modalities", "A picture as a reply has", "image_output"),
    Extra.SEARCH_UNITS: ("model", "A search has", "request"),
    Extra.CHARACTERS: ("model", "A character of speech has", "prompt"),
    Extra.SECONDS: ("model", "A second of sound has", "prompt"),
}
EXCEEDED_TOO_FAR: Final = (
    "Requests to this model cost far more than their estimates, so it is not served until an "
    "administrator has looked after it. Choose another model, or ask the administrator."
)
NO_ROOM: Final = {
    Room.NONE_FOR_ACCOUNT: "Too many large requests of this account are still being sent. "
    "Try again when one has been received.",
    Room.NONE_AT_ALL: "Too many large requests are still being sent. Try again shortly.",
}
_CHANCE: Final = random.SystemRandom()

# Returns the tag by which the provider knows a hold, or None when it is told no tag.
Tagger = Callable[[UUID], str | None]


class DeadlinePassed(Outage):
    """The decision came too late to be used."""


def no_tag(hold_id: UUID) -> None:
    """Return no tag: for installations that take no provider reports."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings of an operator that decisions depend on.

    A request that arrives through a proxy in `trusted_proxies` comes from the address that the
    proxy states. The refusal of a credential is delayed to a multiple of `refusal_step_s` plus a
    random part of one step, so that its timing does not tell why the credential was refused.
    `credit_url` is the page where credit is bought; refusals for want of credit name it.
    """

    floor_tokens: int
    max_body_bytes: int
    trusted_proxies: tuple[Network, ...] = ()
    refusal_step_s: float = 0.0
    credit_url: str | None = None

    @property
    def ways_to_credit(self) -> str:
        """Return the beginning of a sentence about what helps where credit is short."""
        return "Add credit" if self.credit_url is None else f"Buy credit at {self.credit_url}"


class Decider:
    """Decides requests, with the services that the phases need."""

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
        body_work: BodyWork | None = None,
        bodies: ArrivingBodies | None = None,
        own_keys: OwnKeyCache | None = None,
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
        self._bodies = bodies
        self._own_keys = own_keys
        self._load = Load(holds, metrics)
        self._body_work = body_work or BodyWork(clock)

    async def decide(
        self, request: AuthRequest, deadline_s: float, trace: Trace = NO_TRACE
    ) -> Decision:
        """Return Allow under a committed hold, or Deny. `deadline_s` is on the monotonic clock.

        Raises Outage when no decision can be made. No hold stays behind unless Allow is returned.
        """
        began_s = self._clock.monotonic_s()
        trace.begin(Phase.ROUTE)
        policy = route_policy(request.extensions)
        trace.note_policy(policy)
        if policy.is_metered:
            decision = await self._decide_metered(request, policy, deadline_s, trace)
        else:
            decision = await self._decide_unmetered(request, policy, trace)
        step_s = self._terms.refusal_step_s
        if step_s > 0 and isinstance(decision, Deny) and decision.reason is Reason.INVALID_API_KEY:
            elapsed_s = self._clock.monotonic_s() - began_s
            left_s = math.ceil(elapsed_s / step_s) * step_s - elapsed_s
            # Timers have a resolution of a millisecond, so the time that was left would still
            # show in the fraction of one. The random part hides it.
            await asyncio.sleep(left_s + _CHANCE.uniform(0, step_s))
        return decision

    async def _decide_metered(
        self, request: AuthRequest, policy: RoutePolicy, deadline_s: float, trace: Trace
    ) -> Decision:
        # Phase 1, route
        if not request.shows_body:
            return deny(Reason.BODY_NOT_SHOWN)
        endpoint = route(request)
        if isinstance(endpoint, Deny):
            return endpoint
        trace.note_endpoint(endpoint.name)

        # Phases 2, authenticate, and 3, admit
        admitted_at_s = self._clock.monotonic_s()
        principal = await self._admit(request, policy, trace)
        if isinstance(principal, Deny):
            return principal
        account_id = principal.account_id
        try:
            refused = self._limits.find_refusal(principal)
            if refused := refused or self._body_work.find_refusal(account_id):
                return refused
            turn = self._load.enter(account_id, admitted_at_s)
            if turn is not None:
                await self._load.wait(account_id, turn)
            try:
                return await self._decide_admitted(
                    request, policy, principal, admitted_at_s, endpoint, deadline_s, trace
                )
            finally:
                self._load.leave(account_id)
        finally:
            is_large = len(request.body) >= MIN_PARTIAL_BODY_BYTES
            if is_large and not policy.partial_body_bytes and self._bodies is not None:
                self._bodies.give_back(
                    account_id,
                    str(request.request_uuid),
                    request.announced_bytes(self._terms.max_body_bytes),
                    self._body_work.take_unreported(account_id),
                )

    async def _decide_admitted(
        self,
        request: AuthRequest,
        policy: RoutePolicy,
        principal: Principal,
        admitted_at_s: float,
        endpoint: Endpoint,
        deadline_s: float,
        trace: Trace,
    ) -> Decision:
        """Run phases 4 to 9, for a principal that was admitted at `admitted_at_s`."""
        trace.begin(Phase.BODY)
        if policy.partial_body_bytes:
            # Envoy stops reading as soon as it has so much, and does not know whether more comes.
            if len(request.body) >= policy.partial_body_bytes:
                return await self._admit_whole_body(request, principal)
        elif request.is_body_partial:
            raise RouteMisconfigured("a check has only a part of the body, and no second check")
        account_id, work = principal.account_id, self._body_work
        is_large = len(request.body) > SMALL_BODY_BYTES
        body: Body | Deny
        if is_large:
            body = await work.read(account_id, endpoint, request, self._terms.max_body_bytes)
        else:
            reading_at_s = self._clock.monotonic_s()
            body = endpoint.read(request, self._terms.max_body_bytes)
            work.charge(account_id, self._clock.monotonic_s() - reading_at_s)
        if isinstance(body, Deny):
            return body

        trace.begin(Phase.AUTHORIZE)
        # Read once: the snapshot may be refreshed while this waits.
        snapshot, providers = self._snapshot, self._snapshot.providers
        table = providers.table
        candidates = authorize(principal, body.members, snapshot.models, table.aliases)
        if isinstance(candidates, Deny):
            return candidates
        models = candidates.models
        trace.note_models(models)

        trace.begin(Phase.ESTIMATE)
        bind = partial(endpoint.bound, body, candidates.is_online)
        demand = await work.run(account_id, bind) if is_large else bind()
        if isinstance(demand, Deny):
            return demand
        choice: Choice | None = None
        markup_bps = principal.markup_bps
        if principal.uses_own_keys or not (table.is_plain or takes_default_path(candidates, table)):
            own_keys = None
            if principal.uses_own_keys and self._own_keys is not None:
                own_keys = await self._own_keys.find(account_id)
            asked = Asked(endpoint.name, body.members, candidates, demand)
            chosen = choose(asked, providers, principal, own_keys)
            if isinstance(chosen, Deny):
                return chosen
            choice = chosen
            trace.note_choice(choice)
            models, markup_bps = choice.models, choice.markup_bps
            if not choice.takes_openrouter_members and demand.work.picos:
                # Only OpenRouter reads documents for a model, and bills that by the page.
                demand = replace(demand, work=replace(demand.work, picos=0))
        if demand.extras and (refused := refuse_unpriced(demand, models, candidates.is_online)):
            return refused
        factor_bps = raised_factor_bps(models, endpoint.name)
        if factor_bps >= MAX_FACTOR_BPS:
            return deny(Reason.COST_UNBOUNDED, EXCEEDED_TOO_FAR, "model")
        bound = estimate(demand, models, markup_bps, self._terms.floor_tokens, factor_bps)
        trace.note_estimate(demand, bound)
        # Before the limits: a request that no provider can serve is counted in none.
        provider_key = snapshot.provider_key if choice is None else choice.key

        trace.begin(Phase.LIMITS)
        taken = await self._limits.take(principal, models, demand)
        if isinstance(taken, Deny):
            return taken
        statuses, counted = taken

        trace.begin(Phase.HOLD)
        hold_id, model_id = new_hold_id(self._clock.now()), candidates.asked.id
        judged_after_s = self._clock.monotonic_s()
        try:
            placed = await self._holds.place(
                # By position, as Allow below: names cost more than the objects.
                HoldRequest(
                    hold_id,
                    account_id,
                    principal.credential_id,
                    model_id,
                    endpoint.name,
                    bound,
                    request.request_uuid,
                    principal.pass_id,
                    principal.account_rates.concurrent_requests,
                    principal.key_rates.concurrent_requests,
                    counted,
                    principal.has_budget,
                )
            )
        except asyncio.CancelledError:
            # `place` itself releases the hold of a cancelled call, and it alone knows whether
            # there will be one. A second release here would only cost Postgres a statement.
            self._metrics.late_holds.inc()
            raise
        if isinstance(placed, HoldRefused):
            return refusal_of_hold(placed, principal.presented, self._terms.ways_to_credit)

        # From here on there is a hold: each way out either uses it or takes it back.
        trace.begin(Phase.DEADLINE)
        again: Principal | Deny = principal
        try:
            limit = None
            if demand.completion_tokens is None and bound.per_token_picos > 0:
                limit = reply_limit(placed.max_tokens, demand, models)
            if choice is None or choice.takes_openrouter_members:
                tag, ceiling = self._tag(hold_id), price_ceiling(demand, models)
            else:
                tag = ceiling = None
            rewrite = None if choice is None else choice.rewrite
            edit = partial(endpoint.edits, body, limit, tag, ceiling, rewrite)
            edits = await work.run(account_id, edit) if is_large else edit()
            if self._clock.monotonic_s() - admitted_at_s >= READMIT_AFTER_S:
                # The hold judged the credential, but not the secret or the JWT that was presented.
                again = await self._admit(request, policy, NO_TRACE)
        except BaseException:
            # A fault of the edits, too: the request goes nowhere.
            self.take_back(hold_id)
            raise
        if isinstance(again, Deny):
            self.take_back(hold_id)
            return again
        now_s = self._clock.monotonic_s()
        if now_s > min(deadline_s, judged_after_s + MAX_JUDGEMENT_AGE_S) or (
            choice is not None and not choice.may_be_used_at(now_s)
        ):
            self.take_back(hold_id)
            raise DeadlinePassed("the hold came after the deadline")
        self._last_uses.note(principal.credential_id, self._clock.now())
        return Allow(
            hold_id,
            account_id,
            principal.credential_id,
            model_id,
            endpoint.name,
            provider_key,
            edits,
            statuses,
            body.members.get("stream") is True,
            None if choice is None else choice.upstream,
        )

    async def _admit_whole_body(
        self, request: AuthRequest, principal: Principal
    ) -> NeedsWholeBody | Deny:
        """Decide whether Envoy may keep a large body in memory for this account."""
        # A request with an own key may need no credit; the body says which model it names.
        if not principal.uses_own_keys:
            available_picos = await self._holds.find_available(principal.account_id)
            if available_picos < cheapest_charge(self._snapshot.all_models, principal.markup_bps):
                return deny(
                    Reason.INSUFFICIENT_CREDITS,
                    f"{format_usd(available_picos)} USD is available, which is less than the "
                    f"cheapest request costs. {self._terms.ways_to_credit}.",
                )
        # Envoy makes the id. Without it nothing could give the room back.
        if self._bodies is not None and request.request_uuid is not None:
            size_bytes = request.announced_bytes(self._terms.max_body_bytes)
            body_id = str(request.request_uuid)
            room = await self._bodies.take(principal.account_id, body_id, size_bytes)
            if isinstance(room, TooMuchWork):
                return refusal_of_work(room.retry_after_s)
            if room is not Room.GIVEN:
                return deny(
                    Reason.TOO_MANY_CONCURRENT,
                    NO_ROOM[room],
                    retry_after_s=RETRY_AFTER_CONCURRENT_S,
                )
        return NeedsWholeBody()

    async def _decide_unmetered(
        self, request: AuthRequest, policy: RoutePolicy, trace: Trace
    ) -> AllowUnmetered | Deny:
        principal = await self._admit(request, policy, trace)
        if isinstance(principal, Deny):
            return principal
        trace.begin(Phase.LIMITS)
        statuses = await self._limits.take_request(principal)
        if isinstance(statuses, Deny):
            return statuses
        trace.begin(Phase.DEADLINE)
        # No hold judges the credential again, so the cache is asked once more: this process may
        # have been stopped for a while since.
        principal = await self._admit(request, policy, NO_TRACE)
        if isinstance(principal, Deny):
            return principal
        self._last_uses.note(principal.credential_id, self._clock.now())
        scopes = tuple(sorted(principal.scopes))
        return AllowUnmetered(principal.account_id, principal.credential_id, scopes, statuses)

    async def _admit(
        self, request: AuthRequest, policy: RoutePolicy, trace: Trace
    ) -> Principal | Deny:
        """Run phases 2 and 3, apart from limits."""
        trace.begin(Phase.AUTHENTICATE)
        principal = await self._authenticator.authenticate(request, policy, trace)
        if isinstance(principal, Deny):
            return principal
        trace.note_principal(principal)
        trace.begin(Phase.ADMIT)
        address = None
        if principal.networks is not None:
            forwarded = request.values("x-forwarded-for")
            address = client_address(request.peer, forwarded, self._terms.trusted_proxies)
        return admit(principal, policy, address, self._clock.now()) or principal

    def take_back(self, hold_id: UUID) -> None:
        """Release a hold in the background, because its allowance will not be used."""
        self._metrics.late_holds.inc()
        self._holds.release_later([hold_id])


def route(request: AuthRequest) -> Endpoint | Deny:
    """Return the endpoint of a request. Query strings are refused unless they cost nothing."""
    path, question_mark, query = request.path.partition("?")
    endpoint = ENDPOINTS.get(path)
    if endpoint is None or request.method != "POST":
        return deny(Reason.ROUTE_NOT_FOUND)
    if question_mark:
        names = {parameter.partition("=")[0] for parameter in query.split("&")}
        if not names <= HARMLESS_PARAMETERS:
            return deny(Reason.QUERY_NOT_ALLOWED)
    return endpoint


def refuse_unpriced(demand: Demand, models: Sequence[Model], is_online: bool) -> Deny | None:
    """Refuse a request for a part that some model lists no price for: its cost has no bound."""
    for extra in sorted(demand.extras):
        if not all(model.price.lists(extra) for model in models):
            param, words, price = UNPRICED[extra]
            if extra is Extra.WEB_SEARCH and is_online:
                param = "model"
            leave_out = "Leave it out, or choose" if not extra.is_unit else "Choose"
            message = (
                f"{words} no listed price with this model, so its cost cannot be bounded."
                f" {leave_out} a model that lists '{price}' in GET /v1/models."
            )
            return deny(Reason.COST_UNBOUNDED, message, param)
    return None


def refusal_of_hold(refused: HoldRefused, presented: str, ways_to_credit: str) -> Deny:
    """Return the refusal that the client gets when no hold was placed."""
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
            f"{format_usd(max(0, refused.available_picos))} USD is left of the budget of this "
            f"{presented}. Lower max_tokens, wait for the next period, or ask for a larger budget.",
        )
    return deny(
        Reason.INSUFFICIENT_CREDITS,
        f"This request may cost up to {format_usd(refused.needed_picos)} USD and "
        f"{format_usd(refused.available_picos)} USD is available. "
        f"{ways_to_credit}, or lower max_tokens or the length of the prompt.",
    )


def reply_limit(granted_tokens: int, demand: Demand, models: Sequence[Model]) -> int:
    """Return the limit of the reply to write into a body, in tokens.

    Some providers refuse a limit that does not fit into the context beside the prompt. Any limit
    up to the granted one keeps the bound, so the likely length of the prompt is exact enough.
    """
    context = min(model.context_length for model in models)
    likely_prompt = min(demand.prompt_tokens // LIKELY_BYTES_PER_TOKEN, context // 2)
    return max(1, min(granted_tokens, context - likely_prompt))
