"""The policy for requests whose usage neither a log nor the provider tells (rules R4, R18).

It decides only requests that may have been billed: those that never reached a provider are
released when they end. Pure.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.holds.hold import Hold, HoldEnding
from meter.settlement.outcome import has_failed, is_contradicted
from meter.usage.usage import Observation, Source, TokenCounts


class PolicyVerdict(StrEnum):
    """The two decisions of the policy: charge a guess, or end the hold without a charge."""

    CHARGE = "charge"
    VOID = "void"


class Rule(StrEnum):
    """The rule that led to a decision."""

    NO_RECORD = "no_record"
    NO_GENERATION_ID = "no_generation_id"
    NO_ENTRY = "no_entry"
    NOT_REPORTED = "not_reported"
    FAILED = "failed"

    @property
    def verdict(self) -> PolicyVerdict:
        """The decision under this rule.

        A request that may have been billed is charged. Two rules end it without a charge:
        NOT_REPORTED, because the provider's own reports show that nothing was billed, and FAILED,
        because an error without a record is seldom billed.
        """
        return PolicyVerdict.VOID if self in _VOID_ENDINGS else PolicyVerdict.CHARGE

    @property
    def void_ending(self) -> HoldEnding:
        """The reason with which a hold ends that is not charged under this rule."""
        return _VOID_ENDINGS.get(self, HoldEnding.NOT_BILLED)


_VOID_ENDINGS: Final = {
    Rule.NOT_REPORTED: HoldEnding.NOT_BILLED,
    Rule.FAILED: HoldEnding.FAILED,
}


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The ending of one hold by policy, with the rule that led to it.

    `seen` is the observation in the access log; None when the log had no entry.
    """

    hold_id: UUID
    verdict: PolicyVerdict
    rule: Rule
    seen: Observation | None

    @property
    def streamed_bytes(self) -> int:
        """The bytes of a stream that a log saw the client being sent."""
        is_stream = self.seen is not None and self.seen.is_streaming
        return self.seen.response_bytes if self.seen is not None and is_stream else 0

    @property
    def seen_tokens(self) -> TokenCounts | None:
        """The tokens of usage in the log that lacked nothing but a cost; None otherwise."""
        usage = None if self.seen is None else self.seen.usage
        if self.seen is None or usage is None or usage.cost_usd is not None:
            return None
        is_whole = usage.tokens.prompt > 0 and usage.tokens.completion > 0
        return usage.tokens if is_whole and not is_contradicted(self.seen) else None

    def observation(self, hold: Hold) -> Observation:
        """Return an observation of the request whose source is the policy."""
        if self.seen is not None:
            return replace(self.seen, source=Source.POLICY, usage=None)
        return unseen(hold.id, hold.placed_at, Source.POLICY)


def unseen(hold_id: UUID, placed_at: datetime, source: Source) -> Observation:
    """Return the observation of a request that no access log has an entry for."""
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


def choose_rule(seen: Observation | None, generation_id: str | None, has_reports: bool) -> Rule:
    """Return the rule that applies once the time for look-ups is over.

    A generation id proves that the provider began. Without one, and while the provider reports
    every generation that it bills, a missing report means that nothing was billed. An error that
    the provider has no record of is not charged.
    """
    if generation_id is None and has_reports:
        return Rule.NOT_REPORTED
    if seen is not None and seen.usage is None and has_failed(seen):
        return Rule.FAILED
    if generation_id is not None:
        return Rule.NO_RECORD
    return Rule.NO_ENTRY if seen is None else Rule.NO_GENERATION_ID
