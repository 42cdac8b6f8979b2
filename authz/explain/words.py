"""Writes a sentence about each phase from the trace of a decision; decides nothing itself."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from authz.decide import Terms
from authz.decision import Decision, Deny, Reason
from authz.explain.dry_run import DecisionTrace, DryRunHolds, DryRunLimiter
from authz.explain.explanation import Outcome, PhaseReport
from authz.request import AuthRequest
from authz.routing.choice import Choice
from authz.trace import Phase
from meter.holds.hold import HoldPlaced
from meter.identity.principal import Principal
from meter.money import format_usd, own_key_fee
from meter.network import client_address
from meter.pricing.prices import Estimate

_OF_METERING: Final = frozenset({Phase.BODY, Phase.AUTHORIZE, Phase.ESTIMATE, Phase.HOLD})


@dataclass(slots=True)
class Explained:
    """The result of a dry run: the decision or the outage, and the facts behind it.

    `holds` is None when Postgres did not answer, `diagnosis` unless a credential was refused.
    """

    request: AuthRequest
    terms: Terms
    trace: DecisionTrace
    limiter: DryRunLimiter
    decision: Decision | Exception
    holds: DryRunHolds | None = None
    diagnosis: str | None = None

    @property
    def principal(self) -> Principal:
        """Return the principal. Phase 2 must have found one."""
        assert self.trace.principal is not None
        return self.trace.principal


def report_phases(explained: Explained) -> list[PhaseReport]:
    """Return the report of all nine phases, in order."""
    policy, decision = explained.trace.policy, explained.decision
    is_over = isinstance(decision, Deny | Exception)
    last = explained.trace.phase if is_over else None
    reports = []
    for phase in Phase:
        outcome, says = Outcome.NOT_REACHED, ""
        if policy is not None and not policy.is_metered and phase in _OF_METERING:
            outcome, says = Outcome.NOT_NEEDED, "The route is not metered."
        elif last is None or phase < last:
            outcome, says = Outcome.OK, _OK_WORDS[phase](explained)
        elif phase is last and isinstance(decision, Deny):
            outcome, says = Outcome.REFUSED, _refusal_words(explained, decision)
        elif phase is last:
            reason = str(decision) or type(decision).__name__
            outcome, says = Outcome.UNDECIDED, f"It cannot be decided: {reason}."
        reports.append(PhaseReport(phase, outcome, says))
    return reports


def _route_words(explained: Explained) -> str:
    request, endpoint, policy = explained.request, explained.trace.endpoint, explained.trace.policy
    assert policy is not None
    kind = "not metered" if endpoint is None else f"{endpoint}, metered"
    return f"{request.method} {request.path} is {kind}; scope {policy.scope}."


def _identity_words(explained: Explained) -> str:
    who = explained.principal
    by = f" with the pass {who.pass_id}" if who.pass_id else ""
    return (
        f"The {who.kind.value} {who.credential_id}{by} of the account {who.account_id}, "
        f"plan {who.plan_id}."
    )


def _admit_words(explained: Explained) -> str:
    who = explained.principal
    where = "from everywhere"
    if who.networks is not None:
        where = f"from {_address(explained)}, which is in {_join(who.networks)}"
    until = f", until {who.ends_at:%Y-%m-%d %H:%M:%S} UTC" if who.ends_at else ""
    return f"It has the scopes {_join(sorted(who.scopes))}, {where}{until}."


def _address(explained: Explained) -> str:
    request = explained.request
    forwarded = request.values("x-forwarded-for")
    found = client_address(request.peer, forwarded, explained.terms.trusted_proxies)
    return "an unknown address" if found is None else str(found)


def _estimate_words(explained: Explained) -> str:
    demand, bound = explained.trace.demand, explained.trace.estimate
    assert demand is not None and bound is not None
    way = _way_words(explained.trace.choice)
    most = f"{_cost(bound, bound.max_tokens)} USD for {bound.max_tokens} tokens of reply"
    if bound.markup_bps < 0:
        fee = f"the fee of {own_key_fee(bound.markup_bps)} basis points"
        return f"{way}At most {most}, which is {fee}: the account pays the provider itself."
    if demand.completion_tokens is not None:
        return f"{way}At most {most}, markup of {bound.markup_bps} basis points included."
    least = f"{_cost(bound, bound.min_tokens)} USD for {bound.min_tokens}"
    return f"{way}No max_tokens is named: between {least} and {most}, as the money allows."


def _way_words(choice: Choice | None) -> str:
    """Return the sentence about the provider; empty for OpenRouter by the default path."""
    if choice is None or choice.upstream is None:
        return ""
    first = choice.offers[0]
    whose = "the account's own key" if choice.upstream.is_own_key else "our key"
    in_turn = ", then ".join(offer.provider for offer in choice.offers)
    return f"It goes to {in_turn} as '{first.upstream_name}' with {whose}. "


def _cost(bound: Estimate, tokens: int) -> str:
    return format_usd(bound.fixed_picos + bound.per_token_picos * tokens)


def _limit_words(explained: Explained) -> str:
    uses, answer = explained.limiter.uses, explained.limiter.answer
    if not uses:
        return "No limit covers it."
    counted = _join(
        f"{use.limit.bucket} ({use.amount} of {use.limit.most} {use.limit.kind} "
        f"{use.limit.window.words}{', shadow' if use.limit.is_shadow else ''})"
        for use in uses
    )
    if answer is None:
        return f"Redis cannot be asked; each authz counts its share, unseen here: {counted}."
    left = [f"{one.kind} {one.remaining} of {one.limit} left" for one in answer.statuses]
    shadows = [f"{limit.bucket} would refuse, were it enforced" for limit in answer.shadow_refusals]
    return f"Counted in {counted}; {_join([*left, *shadows]) or 'all in shadow mode'}."


def _hold_words(explained: Explained) -> str:
    assert explained.holds is not None and isinstance(explained.holds.answer, HoldPlaced)
    amount = format_usd(explained.holds.answer.amount_picos)
    return f"{amount} USD would be held. {_fact_words(explained.holds)}"


def _fact_words(holds: DryRunHolds | None) -> str:
    """Return the money, budgets and running requests that the hold was judged by."""
    if holds is None or holds.facts is None or holds.request is None:
        return ""
    facts, funds = holds.facts, holds.facts.funds
    running = (
        ("account", facts.account_running, holds.request.account_concurrent),
        ("key", facts.key_running, holds.request.key_concurrent),
    )
    expired = f", expired {format_usd(funds.expired_picos)}" if funds.expired_picos else ""
    parts = [
        f"{format_usd(funds.available_picos)} USD are available (balance "
        f"{format_usd(funds.balance_picos)}, held {format_usd(funds.held_picos)}{expired})",
        *(
            f"the {one.whose}'s budget ({one.period}) of {format_usd(one.limit_picos)} USD "
            f"has {format_usd(one.spent_picos)} spent and {format_usd(one.held_picos)} held"
            for one in facts.budgets
        ),
        *(f"the {who} runs {now} of {most} requests" for who, now, most in running if most),
    ]
    return f"{'; '.join(parts)}."


def _refusal_words(explained: Explained, denied: Deny) -> str:
    if explained.diagnosis is not None:
        return explained.diagnosis
    message, phase = denied.message, explained.trace.phase
    if denied.reason is Reason.ADDRESS_NOT_ALLOWED:
        allowed = _join(explained.principal.networks or ())
        return f"It comes from {_address(explained)}, and may be used from {allowed}."
    if denied.reason is Reason.INSUFFICIENT_SCOPE:
        return f"{message} It has {_join(sorted(explained.principal.scopes)) or 'none'}."
    if denied.reason is Reason.MODEL_NOT_ALLOWED:
        lists = (f"[{_join(sorted(one))}]" for one in explained.principal.model_lists)
        return f"{message} Allowed: {' and '.join(lists)}."
    if denied.reason is Reason.ROUTE_NOT_FOUND:
        path = explained.request.path
        is_inference = path.startswith("/api/v1/llm/") and not path.startswith("/api/v1/llm/models")
        if path.startswith(("/api/v1/", "/v1/models", "/.well-known/")) and not is_inference:
            # authz never sees requests for these paths, because Envoy sends them to the meter.
            return (
                f"{message} The meter API answers there, and no check is made. To see what the "
                "credential is, ask about POST /v1/chat/completions with the same one."
            )
    if phase is Phase.LIMITS:
        return f"{message} {_limit_words(explained)}"
    if phase is Phase.HOLD:
        return f"{message} {_fact_words(explained.holds)}"
    return message


def _join(texts: Iterable[object]) -> str:
    return ", ".join(map(str, texts))


_OK_WORDS: Final[dict[Phase, Callable[[Explained], str]]] = {
    Phase.ROUTE: _route_words,
    Phase.AUTHENTICATE: _identity_words,
    Phase.ADMIT: _admit_words,
    Phase.BODY: lambda explained: (
        f"{len(explained.request.body)} bytes of JSON that can be read in one way only."
    ),
    Phase.AUTHORIZE: lambda explained: (
        f"{_join(model.id for model in explained.trace.models)}: listed, and may be used."
    ),
    Phase.ESTIMATE: _estimate_words,
    Phase.LIMITS: _limit_words,
    Phase.HOLD: _hold_words,
    Phase.DEADLINE: lambda _: (
        "The credential is looked up again if that was a while ago; an answer that comes too late "
        "is 503 and undone."
    ),
}
