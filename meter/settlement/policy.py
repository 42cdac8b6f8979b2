"""What is charged for a request of which neither a log nor the provider says what it used (R4).

Only requests that may have been billed come here: those that never reached a provider are
released when they end. Pure.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.holds.hold import Hold
from meter.money import BPS_PER_WHOLE, add_markup
from meter.pricing.prices import Price
from meter.settlement.outcome import PriceSource, Settled
from meter.usage.usage import Observation, Source, TokenCounts

# Every event of a stream carries at least this much around the text of its token: an id, a
# choice, a delta. So many bytes seen are at most so many tokens seen.
LEAST_BYTES_PER_EVENT: Final = 64


class Verdict(StrEnum):
    """What a policy decides."""

    CHARGE = "charge"
    VOID = "void"


class Rule(StrEnum):
    """Why a policy decides as it does."""

    NO_RECORD = "no_record"
    NO_GENERATION_ID = "no_generation_id"
    NO_ENTRY = "no_entry"
    NOT_REPORTED = "not_reported"


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The ending of one hold by policy, with the rule that led to it.

    `seen` is what the access log saw of the request; None when there was no entry at all.
    """

    hold_id: UUID
    verdict: Verdict
    rule: Rule
    seen: Observation | None

    def observation(self, hold: Hold) -> Observation:
        """What is known of the request, as the policy's own word on it."""
        if self.seen is not None:
            return replace(self.seen, source=Source.POLICY, usage=None)
        return unseen(hold.id, hold.placed_at, Source.POLICY)


def unseen(hold_id: UUID, placed_at: datetime, source: Source) -> Observation:
    """The observation of a request that no access log told of."""
    return Observation(
        hold_id=hold_id,
        started_at=placed_at,
        latency_ms=0,
        time_to_first_byte_ms=None,
        status_code=0,
        provider_status=None,
        response_flags="",
        reached_provider=True,
        is_streaming=False,
        generation_id=None,
        usage=None,
        source=source,
    )


def judge(seen: Observation | None, generation_id: str | None, has_reports: bool) -> Rule:
    """Which rule applies, the time to find out being over.

    A generation id proves that the provider began. Without one, and with reports of every billed
    generation coming in, silence means that nothing was billed.
    """
    if generation_id is not None:
        return Rule.NO_RECORD
    if has_reports:
        return Rule.NOT_REPORTED
    return Rule.NO_ENTRY if seen is None else Rule.NO_GENERATION_ID


def verdict_of(rule: Rule) -> Verdict:
    """What may have been billed is charged; the one exception has the provider's word."""
    return Verdict.VOID if rule is Rule.NOT_REPORTED else Verdict.CHARGE


def estimate_from_seen(hold: Hold, price: Price, seen: Observation | None) -> Settled:
    """The hold less the tokens that a stream, by its bytes, cannot have had; never above it."""
    tokens = _tokens_seen(hold, seen)
    unseen_picos = (hold.max_tokens - tokens) * price.completion_picos
    most_picos = max(0, hold.amount_picos - add_markup(unseen_picos, hold.markup_bps))
    cost_picos = most_picos * BPS_PER_WHOLE // (BPS_PER_WHOLE + hold.markup_bps)
    return Settled(
        tokens=TokenCounts(prompt=0, completion=tokens),
        cost_picos=cost_picos,
        charge_picos=add_markup(cost_picos, hold.markup_bps),
        price_source=PriceSource.ESTIMATE,
    )


def _tokens_seen(hold: Hold, seen: Observation | None) -> int:
    if seen is None or not seen.is_streaming:
        return hold.max_tokens
    return min(hold.max_tokens, seen.response_bytes // LEAST_BYTES_PER_EVENT)
