"""Finds the limits that a request counts in, and the status that a client is shown."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from authz.decision import Deny, LimitStatus, Reason, deny
from authz.limits.answer import LimitAnswer, Limiter, LimitUse
from authz.metrics import Metrics
from meter.holds.hold import NO_TOKENS, CountedTokens
from meter.identity.principal import Principal
from meter.limits.limits import Limit, LimitKind, LimitRule, LimitWindow, Rates
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand, Model

# An estimate takes a byte for a token, and adds room for the texts that a provider puts around a
# prompt, so that it is never too low. Limits count the likely number; settlement corrects it.
COUNTED_BYTES_PER_TOKEN: Final = 4
# Credentials whose limits are cached.
MAX_REMEMBERED: Final = 10_000
# Sets of models of one credential whose limits are cached.
MAX_MODELS_REMEMBERED: Final = 16
# The length of a reply, as it counts while Redis is away, where a request names no limit.
LOCAL_REPLY_TOKENS: Final = 1_024

# The statuses for the headers, and the tokens that were counted.
Counted = tuple[tuple[LimitStatus, ...], CountedTokens]


NOTHING_COUNTED: Final[Counted] = ((), NO_TOKENS)


class Rules(Protocol):
    """The limit rules in force."""

    @property
    def rules(self) -> Sequence[LimitRule]:
        """All rules that are in force."""
        ...


class _Covering(NamedTuple):
    """The limits that cover a request, and their buckets of tokens."""

    limits: list[Limit]
    buckets: tuple[str, ...]


class _Own(NamedTuple):
    """The limits of one credential and its account; with those of rules, by models.

    They hold for these terms and rules alone: a refresh of the rules brings another list.
    """

    terms: tuple[Rates, Rates, str, str]
    rules: Sequence[LimitRule]
    of_requests: list[Limit]
    by_models: dict[tuple[str, ...], _Covering]


class Limits:
    """Counts requests against every limit that covers them, all or none."""

    def __init__(self, limiter: Limiter, rules: Rules, metrics: Metrics) -> None:
        self._limiter = limiter
        self._rules = rules
        self._metrics = metrics
        # The oldest goes first: a lookup that notes a use would cost more than to make one anew.
        self._own: dict[str, _Own] = {}

    def find_refusal(self, principal: Principal) -> Deny | None:
        """Return a refusal that is certain before the body is read; None where it is not."""
        limits = self._own_limits(principal).of_requests
        answer = self._limiter.find_refusal(limits) if limits else None
        return None if answer is None else _refusal(answer, principal)

    async def take(
        self, principal: Principal, models: Sequence[Model], demand: Demand
    ) -> Counted | Deny:
        """Count one request and its prompt; return the statuses of the limits, or the refusal."""
        covering = self._covering(principal, models)
        if not covering.limits:
            return NOTHING_COUNTED
        # Search results and other texts that are fetched are bounded by the context alone.
        context = max(model.context_length for model in models) * demand.prompts
        seen = min(demand.prompt_tokens - PROMPT_OVERHEAD_TOKENS, context)
        prompt = max(1, seen // COUNTED_BYTES_PER_TOKEN)
        reply = demand.completion_tokens or LOCAL_REPLY_TOKENS
        answer = await self._take(principal, covering.limits, prompt, prompt + reply)
        if isinstance(answer, Deny):
            return answer
        buckets = covering.buckets
        return answer, CountedTokens(buckets, prompt) if buckets else NO_TOKENS

    async def take_request(self, principal: Principal) -> tuple[LimitStatus, ...] | Deny:
        """Count one request that costs no tokens; return the statuses or the refusal."""
        return await self._take(principal, self._own_limits(principal).of_requests, 0, 0)

    async def _take(
        self, principal: Principal, limits: Sequence[Limit], tokens: int, local_tokens: int
    ) -> tuple[LimitStatus, ...] | Deny:
        if not limits:
            return ()
        answer = await self._limiter.take(
            [
                LimitUse(limit, 1)
                if limit.kind is LimitKind.REQUESTS
                else LimitUse(limit, tokens, local_amount=local_tokens)
                for limit in limits
            ]
        )
        for limit in answer.shadow_refusals:
            self._metrics.count_shadow_refusal(limit)
        return answer.statuses if answer.refused_by is None else _refusal(answer, principal, tokens)

    def _covering(self, principal: Principal, models: Sequence[Model]) -> _Covering:
        """Return the limits of the credential, the account and the rules, cached by models."""
        own = self._own_limits(principal)
        names = tuple(model.id for model in models)
        covering = own.by_models.get(names)
        if covering is None:
            limits = own_limits(principal)
            ids = (principal.account_id, principal.credential_id)
            for rule in own.rules:
                # A fallback may be the model that serves the request, so it counts as well.
                if any(rule.covers(principal.plan_id, *ids, name) for name in names):
                    limits += _limits(rule.bucket(*ids), rule.rates, rule.is_shadow)
            buckets = (limit.bucket for limit in limits if limit.kind is LimitKind.TOKENS)
            covering = _Covering(limits, tuple(buckets))
            if len(own.by_models) >= MAX_MODELS_REMEMBERED:
                own.by_models.clear()
            own.by_models[names] = covering
        return covering

    def _own_limits(self, principal: Principal) -> _Own:
        """Return the limits of the credential and of the account, cached while they stay."""
        own = self._own.get(principal.credential_id)
        rules = self._rules.rules
        terms = (
            principal.key_rates,
            principal.account_rates,
            principal.plan_id,
            principal.account_id,
        )
        if own is None or own.rules is not rules or own.terms != terms:
            of_requests = [
                limit for limit in own_limits(principal) if limit.kind is LimitKind.REQUESTS
            ]
            self._own.pop(principal.credential_id, None)
            if len(self._own) >= MAX_REMEMBERED:
                del self._own[next(iter(self._own))]
            own = self._own[principal.credential_id] = _Own(terms, rules, of_requests, {})
        return own


def own_limits(principal: Principal) -> list[Limit]:
    """Return the limits of the credential and of the account."""
    return [
        *_limits(f"key:{principal.credential_id}", principal.key_rates),
        *_limits(f"account:{principal.account_id}", principal.account_rates),
    ]


def _limits(bucket: str, rates: Rates, is_shadow: bool = False) -> Iterable[Limit]:
    if rates.requests_per_minute is not None:
        yield Limit(bucket, LimitKind.REQUESTS, rates.requests_per_minute, is_shadow)
    if rates.tokens_per_minute is not None:
        yield Limit(bucket, LimitKind.TOKENS, rates.tokens_per_minute, is_shadow)
    for most, window in (
        (rates.requests_per_day, LimitWindow.DAY),
        (rates.requests_per_month, LimitWindow.MONTH),
    ):
        if most is not None:
            yield Limit(bucket, LimitKind.REQUESTS, most, is_shadow, window)


def _refusal(answer: LimitAnswer, principal: Principal, prompt_tokens: int = 0) -> Deny:
    assert answer.refused_by is not None
    limit = answer.refused_by
    kind, _, _ = limit.bucket.partition(":")
    whose = "this account" if kind == "account" else "this kind of request"
    if kind == "key":
        whose = f"this {principal.presented}"
    what = f"The limit of {limit.most} {limit.kind} {limit.window.words} for {whose}"
    message = f"{what} is used up. Wait as long as 'retry-after' says."
    if limit.kind is LimitKind.TOKENS and prompt_tokens > limit.most:
        # Waiting does not help, and "used up" would not be true.
        message = (
            f"{what} is less than this prompt, which counts as {prompt_tokens}. "
            "Shorten the prompt, or ask for a higher limit."
        )
    return deny(
        Reason.RATE_LIMIT_EXCEEDED,
        message,
        limits=answer.statuses,
        retry_after_s=answer.retry_after_s,
    )
