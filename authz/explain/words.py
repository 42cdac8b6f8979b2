"""What is said of each phase, from what was seen. Nothing here decides anything."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from authz.callers.authorize import authorize
from authz.catalogue import CatalogueSnapshot
from authz.decide import Terms, route
from authz.decision import Decision, Deny, Reason
from authz.endpoints.body import read_body
from authz.endpoints.endpoint import Endpoint
from authz.explain.explanation import Outcome, Phase, PhaseReport
from authz.explain.trace import Seen
from authz.limits.answer import Taking
from authz.policy import route_policy
from authz.request import AuthRequest
from meter.errors import Outage, StoreUnavailable
from meter.holds.hold import HoldPlaced, HoldRequest
from meter.identity.credential_state import Means
from meter.identity.principal import Principal
from meter.money import format_usd
from meter.network import client_address
from meter.pricing.prices import Estimate, estimate

_OF_METERING: Final = frozenset(
    {Phase.BODY, Phase.AUTHORIZE, Phase.ESTIMATE, Phase.HOLD, Phase.DEADLINE}
)


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision that was tried, or the outage that it met, and what was seen of it."""

    request: AuthRequest
    decision: Decision | Exception
    seen: Seen
    diagnosis: str | None
    terms: Terms

    @property
    def principal(self) -> Principal:
        """Whom phase 2 found."""
        assert self.seen.principal is not None
        return self.seen.principal


def report_phases(explained: Explained, snapshot: CatalogueSnapshot) -> list[PhaseReport]:
    """All nine phases, in order."""
    last = _last_phase(explained, snapshot)
    return [_report(explained, phase, last) for phase in Phase]


def _report(explained: Explained, phase: Phase, last: Phase | None) -> PhaseReport:
    if _is_unmetered(explained) and phase in _OF_METERING:
        return PhaseReport(phase, Outcome.NOT_NEEDED, "The route is not metered.")
    if last is None or phase < last:
        return PhaseReport(phase, Outcome.OK, _OK_WORDS[phase](explained))
    if phase > last:
        return PhaseReport(phase, Outcome.NOT_REACHED, "")
    if isinstance(explained.decision, Deny):
        return PhaseReport(phase, Outcome.REFUSED, _refusal_words(explained, phase))
    return PhaseReport(phase, Outcome.UNDECIDED, f"Nobody can tell: {_reason(explained)}.")


def _last_phase(explained: Explained, snapshot: CatalogueSnapshot) -> Phase | None:
    """The phase that ended it; None where it went through all of them."""
    if not isinstance(explained.decision, Deny | Exception):
        return None
    if explained.seen.phase is not Phase.BODY:
        return explained.seen.phase
    # Phases 4 to 6 are pure: asked again, they say again which of them it was.
    body = read_body(explained.request, explained.terms.max_body_bytes)
    if isinstance(body, Deny):
        return Phase.BODY
    try:
        candidates = authorize(explained.principal, body.members, snapshot.models)
    except StoreUnavailable:
        return Phase.AUTHORIZE
    return Phase.AUTHORIZE if isinstance(candidates, Deny) else Phase.ESTIMATE


def _is_unmetered(explained: Explained) -> bool:
    try:
        return not route_policy(explained.request.extensions).is_metered
    except Outage:
        return False


def _reason(explained: Explained) -> str:
    return str(explained.decision) or type(explained.decision).__name__


def _route_words(explained: Explained) -> str:
    policy = route_policy(explained.request.extensions)
    endpoint = route(explained.request) if policy.is_metered else None
    what = f"{endpoint.name}, metered" if isinstance(endpoint, Endpoint) else "not metered"
    return f"{explained.request.method} {explained.request.path} is {what}; scope {policy.scope}."


def _elsewhere(explained: Explained) -> str:
    """The meter API answers paths that are never decided here."""
    path = explained.request.path
    is_inference = path.startswith("/api/v1/llm/") and not path.startswith("/api/v1/llm/models")
    if is_inference or not path.startswith(("/api/v1/", "/v1/models", "/.well-known/")):
        return ""
    return (
        "The meter API answers there, and no check is made. For what its credential is, ask "
        "about POST /v1/chat/completions with the same one."
    )


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


def _body_words(explained: Explained) -> str:
    return f"{len(explained.request.body)} bytes of JSON that can be read in one way only."


def _model_words(explained: Explained) -> str:
    models = explained.seen.models
    if not models:
        return "The models are listed, and may be used."
    return f"{_join(model.id for model in models)}: listed, and may be used."


def _estimate_words(explained: Explained) -> str:
    seen = explained.seen
    assert seen.demand is not None
    markup_bps = explained.principal.markup_bps
    bound = estimate(seen.demand, list(seen.models), markup_bps, explained.terms.floor_tokens)
    most = f"{_cost(bound, bound.max_tokens)} USD for {bound.max_tokens} tokens of reply"
    if seen.demand.completion_tokens is not None:
        return f"At most {most}, markup of {markup_bps} basis points included."
    least = f"{_cost(bound, bound.min_tokens)} USD for {bound.min_tokens}"
    return f"No max_tokens is named: between {least} and {most}, as the money allows."


def _cost(bound: Estimate, tokens: int) -> str:
    return format_usd(bound.fixed_picos + bound.per_token_picos * tokens)


def _limit_words(explained: Explained) -> str:
    seen = explained.seen
    if not seen.takings:
        return "No limit covers it."
    counted = _join(map(_taking_words, seen.takings))
    answer = seen.limit_answer
    if answer is None:
        return f"Redis cannot be asked; each authz counts its share, unseen here: {counted}."
    left = [f"{one.kind} {one.remaining} of {one.limit} left" for one in answer.statuses]
    shadows = [f"{limit.bucket} would refuse, were it enforced" for limit in answer.shadow_refusals]
    return f"Counted in {counted}; {_join([*left, *shadows]) or 'all in shadow mode'}."


def _taking_words(taking: Taking) -> str:
    limit = taking.limit
    shadow = ", shadow" if limit.is_shadow else ""
    return f"{limit.bucket} ({taking.amount} of {limit.per_minute} {limit.kind} a minute{shadow})"


def _hold_words(explained: Explained) -> str:
    answer = explained.seen.hold_answer
    assert isinstance(answer, HoldPlaced)
    return f"{format_usd(answer.amount_picos)} USD would be held. {_means_words(explained.seen)}"


def _means_words(seen: Seen) -> str:
    if seen.means is None or seen.hold is None:
        return ""
    funds = seen.means.funds
    parts = [
        f"{format_usd(funds.available_picos)} USD are available "
        f"(balance {format_usd(funds.balance_picos)}, held {format_usd(funds.held_picos)})",
        *_budget_words(seen.means),
        *_running_words(seen.means, seen.hold),
    ]
    return f"{'; '.join(parts)}."


def _budget_words(means: Means) -> list[str]:
    return [
        f"the {one.whose}'s budget ({one.period}) of {format_usd(one.limit_picos)} USD "
        f"has {format_usd(one.spent_picos)} spent and {format_usd(one.held_picos)} held"
        for one in means.budgets
    ]


def _running_words(means: Means, hold: HoldRequest) -> list[str]:
    counted = (
        ("account", means.account_running, hold.account_concurrent),
        ("key", means.key_running, hold.key_concurrent),
    )
    return [f"the {who} runs {now} of {most} requests" for who, now, most in counted if most]


def _deadline_words(_explained: Explained) -> str:
    return "Nothing is left to wait for; a decision that comes too late is 503 and undone."


def _refusal_words(explained: Explained, phase: Phase) -> str:
    denied = explained.decision
    assert isinstance(denied, Deny)
    if explained.diagnosis is not None:
        return explained.diagnosis
    if denied.reason is Reason.ADDRESS_NOT_ALLOWED:
        allowed = _join(explained.principal.networks or ())
        return f"It comes from {_address(explained)}, and may be used from {allowed}."
    if denied.reason is Reason.INSUFFICIENT_SCOPE:
        return f"{denied.message} It has {_join(sorted(explained.principal.scopes)) or 'none'}."
    if denied.reason is Reason.MODEL_NOT_ALLOWED:
        lists = (f"[{_join(sorted(one))}]" for one in explained.principal.model_lists)
        return f"{denied.message} Allowed: {' and '.join(lists)}."
    if denied.reason is Reason.ROUTE_NOT_FOUND:
        return f"{denied.message} {_elsewhere(explained)}".rstrip()
    if phase is Phase.LIMITS:
        return f"{denied.message} {_limit_words(explained)}"
    if phase is Phase.HOLD:
        return f"{denied.message} {_means_words(explained.seen)}"
    return denied.message


def _join(texts: Iterable[object]) -> str:
    return ", ".join(map(str, texts))


_OK_WORDS: Final[dict[Phase, Callable[[Explained], str]]] = {
    Phase.ROUTE: _route_words,
    Phase.AUTHENTICATE: _identity_words,
    Phase.ADMIT: _admit_words,
    Phase.BODY: _body_words,
    Phase.AUTHORIZE: _model_words,
    Phase.ESTIMATE: _estimate_words,
    Phase.LIMITS: _limit_words,
    Phase.HOLD: _hold_words,
    Phase.DEADLINE: _deadline_words,
}
