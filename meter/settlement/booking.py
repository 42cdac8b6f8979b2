"""Makes bookings: a settled request becomes a usage record and balanced postings.

A booking ends a hold, adds a late charge to a hold that ended without one, or corrects an earlier
booking. A correction carries differences, and the corrected booking stays. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meter.holds.hold import Hold
from meter.ledger.postings import Posting, correction, excess, reversal, settlement
from meter.settlement.outcome import PriceSource, Settled
from meter.usage.usage import Observation, Source, TokenCounts

PROVISIONAL_REASON: Final = "usage unknown, charged by policy: "


class BookingKind(StrEnum):
    """The kinds of usage records. All but `correction` are the first record of their hold."""

    SETTLEMENT = "settlement"
    LATE = "late"
    PROVISIONAL = "provisional"
    CORRECTION = "correction"


@dataclass(frozen=True, slots=True)
class Recorded:
    """The state of a request in the books so far: sums over its usage records.

    `cost_picos` is what the request cost, whoever paid the provider. `is_provisional` is True while
    its charge is a guess of the policy.
    """

    tokens: TokenCounts
    cost_picos: int
    charge_picos: int
    last_revision: int
    source: Source
    is_provisional: bool


@dataclass(frozen=True, slots=True)
class Booking:
    """One usage record with its postings.

    Amounts are pico-dollars; those of a correction are differences and may be negative.
    `cost_picos` is what we owe the provider: nothing where the account paid with its own key, and
    `own_key_cost_picos` is what that cost; None for our key. `excess_picos` is the part of the
    charge that no held money covered.
    """

    observation: Observation
    hold: Hold
    kind: BookingKind
    revision: int
    tokens: TokenCounts
    cost_picos: int
    charge_picos: int
    excess_picos: int
    price_source: PriceSource
    postings: tuple[Posting, ...]
    own_key_cost_picos: int | None

    @property
    def whole_cost_picos(self) -> int:
        """Return what the provider charges for the request, whoever pays it."""
        return self.cost_picos if self.own_key_cost_picos is None else self.own_key_cost_picos


def book_settlement(observation: Observation, hold: Hold, settled: Settled) -> Booking:
    """Book the charge that ends a hold; the part above the hold is an excess posting (rule R5)."""
    over_picos = max(0, settled.charge_picos - hold.amount_picos)
    return _first(observation, hold, settled, BookingKind.SETTLEMENT, over_picos)


def book_late(observation: Observation, hold: Hold, settled: Settled) -> Booking:
    """Book the charge of a request whose hold ended without one, so that all of it is excess."""
    return _first(observation, hold, settled, BookingKind.LATE, settled.charge_picos)


def book_provisional(observation: Observation, hold: Hold, settled: Settled, rule: str) -> Booking:
    """Book a charge that a rule of policy decided; a later record of the provider replaces it."""
    reason = PROVISIONAL_REASON + rule
    return _first(observation, hold, settled, BookingKind.PROVISIONAL, 0, reason)


def book_correction(
    observation: Observation, hold: Hold, settled: Settled, recorded: Recorded
) -> Booking:
    """Book the differences between the recorded amounts and those that are known now."""
    revision = recorded.last_revision + 1
    difference_picos = settled.charge_picos - recorded.charge_picos
    cost_picos = settled.cost_picos - recorded.cost_picos
    return Booking(
        observation=observation,
        hold=hold,
        kind=BookingKind.CORRECTION,
        revision=revision,
        tokens=settled.tokens.less(recorded.tokens),
        cost_picos=hold.owed_picos(cost_picos),
        charge_picos=difference_picos,
        excess_picos=max(0, difference_picos),
        price_source=settled.price_source,
        postings=_correction_postings(hold, settled, recorded, revision),
        own_key_cost_picos=cost_picos if hold.is_own_key else None,
    )


def _first(
    observation: Observation,
    hold: Hold,
    settled: Settled,
    kind: BookingKind,
    over_picos: int,
    reason: str | None = None,
) -> Booking:
    cost_picos, charge_picos = hold.owed_picos(settled.cost_picos), settled.charge_picos
    # The excess carries cost first: what was held pays our markup last.
    over_cost_picos = min(cost_picos, over_picos)
    postings = []
    if charge_picos > over_picos:
        within = (cost_picos - over_cost_picos, charge_picos - over_picos)
        postings.append(settlement(hold, *within, reason))
    if over_picos > 0:
        postings.append(excess(hold, over_cost_picos, over_picos))
    return Booking(
        observation=observation,
        hold=hold,
        kind=kind,
        revision=0,
        tokens=settled.tokens,
        cost_picos=cost_picos,
        charge_picos=charge_picos,
        excess_picos=over_picos,
        price_source=settled.price_source,
        postings=tuple(postings),
        own_key_cost_picos=settled.cost_picos if hold.is_own_key else None,
    )


def _correction_postings(
    hold: Hold, settled: Settled, recorded: Recorded, revision: int
) -> tuple[Posting, ...]:
    now = (hold.owed_picos(settled.cost_picos), settled.charge_picos)
    before = (hold.owed_picos(recorded.cost_picos), recorded.charge_picos)
    if now == before:
        return ()
    if not recorded.is_provisional:
        return (correction(hold, revision, now[0] - before[0], now[1] - before[1]),)
    undone = (reversal(hold, revision, *before),) if any(before) else ()
    return (*undone, correction(hold, revision, *now)) if any(now) else undone
