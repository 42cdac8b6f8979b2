"""Plans a batch of endings: what each does to its hold, to the books and to its account.

Pure. The store reads the holds under their locks, asks for a plan, and writes it in the
same transaction.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.holds.hold import Hold, HoldEnding, HoldState
from meter.limits.limits import TokenUse
from meter.pricing.prices import Price
from meter.settlement.booking import (
    Booking,
    Recorded,
    book_correction,
    book_late,
    book_provisional,
    book_settlement,
)
from meter.settlement.outcome import PriceSource, Released, Settled, Unknown, UnknownReason, settle
from meter.settlement.policy import PolicyDecision, Verdict, estimate_from_seen
from meter.usage.usage import Observation, TokenCounts

# What a request cost that turns out never to have reached a provider.
_NOTHING: Final = Settled(TokenCounts(0, 0), 0, 0, PriceSource.PROVIDER)


class ConflictKind(StrEnum):
    """Why an arrival was kept and alarmed instead of applied."""

    HOLD_NOT_FOUND = "hold_not_found"
    OTHER_AMOUNT = "other_amount"


@dataclass(frozen=True, slots=True)
class HoldOnRecord:
    """A hold with the price it was estimated by, and what the books say of it so far.

    `recorded` is None while nothing was charged. `generation_id` is where to ask, once known.
    `has_entry` is False where no log has told of the request, and its hold is unknown for that.
    """

    hold: Hold
    price: Price
    recorded: Recorded | None
    generation_id: str | None = None
    has_entry: bool = True


@dataclass(slots=True)
class AccountMove:
    """What a batch does to one account, in pico-dollars."""

    charge_picos: int = 0
    freed_picos: int = 0
    excess_picos: int = 0


@dataclass(slots=True)
class SpendingMove:
    """What a batch does to the budgets of one key or pass, for holds placed at one instant."""

    charge_picos: int = 0
    freed_picos: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """How one live hold ends."""

    hold_id: UUID
    state: HoldState
    reason: HoldEnding


@dataclass(slots=True)
class BatchPlan:
    """Everything a batch changes. `duplicates` counts arrivals that change nothing.

    `token_uses` is what limits of tokens did not know when the holds were placed.
    """

    bookings: list[Booking] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    unknown: list[tuple[Observation, UnknownReason]] = field(default_factory=list)
    conflicts: list[tuple[Observation, ConflictKind]] = field(default_factory=list)
    duplicates: int = 0
    moves: dict[str, AccountMove] = field(default_factory=lambda: defaultdict(AccountMove))
    spending: dict[tuple[str, datetime], SpendingMove] = field(
        default_factory=lambda: defaultdict(SpendingMove)
    )
    token_uses: list[TokenUse] = field(default_factory=list)

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.bookings or self.endings or self.unknown or self.conflicts)

    def book(self, booking: Booking) -> None:
        """Put a usage record and its postings in the books, and move the balance by them."""
        self.bookings.append(booking)
        move = self.moves[booking.hold.account_id]
        move.charge_picos += booking.charge_picos
        move.excess_picos += booking.excess_picos
        for spender in booking.hold.spenders:
            self.spending[spender, booking.hold.placed_at].charge_picos += booking.charge_picos

    def end(
        self,
        hold: Hold,
        state: HoldState,
        reason: HoldEnding,
        tokens: TokenCounts = TokenCounts(0, 0),  # noqa: B008  # frozen, so sharing it is safe
    ) -> None:
        """End a live hold after so many tokens, and free what it set aside."""
        self.endings.append(Ending(hold.id, state, reason))
        self.moves[hold.account_id].freed_picos += hold.amount_picos
        for spender in hold.spenders:
            self.spending[spender, hold.placed_at].freed_picos += hold.amount_picos
        more = tokens.prompt + tokens.completion - hold.counted.tokens
        if hold.counted.buckets and more:
            self.token_uses.append(TokenUse(hold.counted.buckets, more, hold.placed_at))


def plan_batch(
    observations: Sequence[Observation], records: Mapping[UUID, HoldOnRecord]
) -> BatchPlan:
    """Decide a batch in which every hold appears at most once."""
    plan = BatchPlan()
    for observation in observations:
        record = records.get(observation.hold_id)
        if record is None:
            plan.conflicts.append((observation, ConflictKind.HOLD_NOT_FOUND))
        elif record.hold.is_live:
            _plan_ending(plan, observation, record)
        else:
            _plan_after_ending(plan, observation, record)
    return plan


def plan_policy(
    decisions: Sequence[PolicyDecision], records: Mapping[UUID, HoldOnRecord]
) -> BatchPlan:
    """End by policy those of the holds that are still live; the truth may have come meanwhile."""
    plan = BatchPlan()
    for decision in decisions:
        record = records.get(decision.hold_id)
        if record is None or not record.hold.is_live:
            plan.duplicates += 1
        elif decision.verdict is Verdict.VOID:
            plan.end(record.hold, HoldState.EXPIRED, HoldEnding.NOT_BILLED)
        else:
            estimate = estimate_from_seen(record.hold, record.price, decision.seen)
            observation = decision.observation(record.hold)
            rule = decision.rule.value
            plan.book(book_provisional(observation, record.hold, estimate, rule))
            plan.end(record.hold, HoldState.SETTLED, HoldEnding.PROVISIONAL, estimate.tokens)
    return plan


def _plan_ending(plan: BatchPlan, observation: Observation, record: HoldOnRecord) -> None:
    hold = record.hold
    outcome = settle(observation, hold, record.price)
    if isinstance(outcome, Settled):
        plan.book(book_settlement(observation, hold, outcome))
        plan.end(hold, HoldState.SETTLED, HoldEnding.SETTLED, outcome.tokens)
    elif isinstance(outcome, Released):
        plan.end(hold, HoldState.RELEASED, outcome.ending)
    elif hold.state is HoldState.OPEN or _tells_more(observation, record):
        plan.unknown.append((observation, outcome.reason))
    else:
        plan.duplicates += 1


def _tells_more(observation: Observation, record: HoldOnRecord) -> bool:
    return not record.has_entry or (
        observation.generation_id is not None and record.generation_id is None
    )


def _plan_after_ending(plan: BatchPlan, observation: Observation, record: HoldOnRecord) -> None:
    """A hold ends once. What arrives then repeats, corrects or contradicts what is recorded."""
    outcome = settle(observation, record.hold, record.price)
    if isinstance(outcome, Unknown):
        _plan_question(plan, observation, record, outcome)
    elif record.recorded is None:
        _plan_late(plan, observation, record.hold, outcome)
    else:
        _plan_repetition(plan, observation, record, record.recorded, outcome)


def _plan_question(
    plan: BatchPlan, observation: Observation, record: HoldOnRecord, unknown: Unknown
) -> None:
    """The hold ended without the truth; this arrival knows whom to ask for it."""
    is_guess = record.recorded is None or record.recorded.is_provisional
    if is_guess and observation.generation_id is not None:
        plan.unknown.append((observation, unknown.reason))
    else:
        plan.duplicates += 1


def _plan_late(
    plan: BatchPlan, observation: Observation, hold: Hold, outcome: Settled | Released
) -> None:
    if isinstance(outcome, Settled):
        plan.book(book_late(observation, hold, outcome))
    else:
        plan.duplicates += 1


def _plan_repetition(
    plan: BatchPlan,
    observation: Observation,
    record: HoldOnRecord,
    recorded: Recorded,
    outcome: Settled | Released,
) -> None:
    is_better = observation.source.rank > recorded.source.rank
    if isinstance(outcome, Released):
        if not recorded.is_provisional:
            plan.duplicates += 1
            return
        outcome = _NOTHING
    says_the_same = outcome.cost_picos == recorded.cost_picos
    if says_the_same and not (recorded.is_provisional and is_better):
        plan.duplicates += 1
    elif is_better:
        plan.book(book_correction(observation, record.hold, outcome, recorded))
    else:
        plan.conflicts.append((observation, ConflictKind.OTHER_AMOUNT))
