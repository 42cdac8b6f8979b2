"""Plans a batch of settlements: what each observed ending does to its hold and its account.

Pure. The store reads the holds under their locks, asks for a plan, and writes it in the
same transaction.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from meter.holds import Hold, HoldState
from meter.pricing import Price
from meter.settle import Released, Settled, UnknownReason, settle
from meter.usage import Observation

_LIVE = frozenset({HoldState.OPEN, HoldState.UNKNOWN})


class ConflictKind(StrEnum):
    """Why an arrival was kept and alarmed instead of applied."""

    HOLD_NOT_FOUND = "hold_not_found"
    OTHER_AMOUNT = "other_amount"
    AFTER_ENDING = "after_ending"


@dataclass(frozen=True, slots=True)
class HoldOnRecord:
    """A hold with the price it was estimated by, and the cost already settled, if any."""

    hold: Hold
    price: Price
    settled_cost_picos: int | None


@dataclass(slots=True)
class AccountMove:
    """What a batch does to one account, in pico-dollars."""

    charge_picos: int = 0
    freed_picos: int = 0
    excess_picos: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """One hold that ends with a charge in this batch."""

    observation: Observation
    hold: Hold
    outcome: Settled


@dataclass(slots=True)
class BatchPlan:
    """Everything a batch changes. `duplicates` counts arrivals that change nothing."""

    settlements: list[Settlement] = field(default_factory=list)
    released: list[UUID] = field(default_factory=list)
    unknown: list[tuple[Observation, UnknownReason]] = field(default_factory=list)
    conflicts: list[tuple[Observation, ConflictKind]] = field(default_factory=list)
    duplicates: int = 0
    moves: dict[str, AccountMove] = field(default_factory=lambda: defaultdict(AccountMove))

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.settlements or self.released or self.unknown or self.conflicts)


def plan_batch(
    observations: Sequence[Observation], records: Mapping[UUID, HoldOnRecord]
) -> BatchPlan:
    """Decide a batch in which every hold appears at most once."""
    plan = BatchPlan()
    for observation in observations:
        record = records.get(observation.hold_id)
        if record is None:
            plan.conflicts.append((observation, ConflictKind.HOLD_NOT_FOUND))
        elif record.hold.state in _LIVE:
            _plan_ending(plan, observation, record)
        else:
            _plan_repetition(plan, observation, record)
    return plan


def _plan_ending(plan: BatchPlan, observation: Observation, record: HoldOnRecord) -> None:
    hold = record.hold
    outcome = settle(observation, hold, record.price)
    if isinstance(outcome, Settled):
        plan.settlements.append(Settlement(observation, hold, outcome))
        move = plan.moves[hold.account_id]
        move.charge_picos += outcome.charge_picos
        move.excess_picos += outcome.excess_picos
        move.freed_picos += hold.amount_picos
    elif isinstance(outcome, Released):
        plan.released.append(hold.id)
        plan.moves[hold.account_id].freed_picos += hold.amount_picos
    elif hold.state is HoldState.OPEN:
        plan.unknown.append((observation, outcome.reason))
    else:
        plan.duplicates += 1


def _plan_repetition(plan: BatchPlan, observation: Observation, record: HoldOnRecord) -> None:
    """A hold ends once; an arrival after that is a duplicate, or it contradicts and is kept."""
    outcome = settle(observation, record.hold, record.price)
    if not isinstance(outcome, Settled) or outcome.cost_picos == record.settled_cost_picos:
        plan.duplicates += 1
    elif record.settled_cost_picos is None:
        plan.conflicts.append((observation, ConflictKind.AFTER_ENDING))
    else:
        plan.conflicts.append((observation, ConflictKind.OTHER_AMOUNT))
