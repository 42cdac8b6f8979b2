"""Decides a batch of endings: the change of each to its hold, to the books and to its account.

Pure. The store reads the holds under their locks, asks for the changes, and writes them in the
same transaction.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from meter.holds.hold import Hold, HoldEnding, HoldState
from meter.limits.limits import TokenUse
from meter.money import add_markup
from meter.pricing.prices import Price
from meter.settlement.billing_terms import TermsOf, default_terms
from meter.settlement.booking import (
    Booking,
    Recorded,
    book_correction,
    book_late,
    book_provisional,
    book_settlement,
)
from meter.settlement.outcome import (
    PriceSource,
    Released,
    Settled,
    Unknown,
    UnknownReason,
    decide_outcome,
)
from meter.settlement.policy import PolicyDecision, PolicyVerdict, unseen
from meter.settlement.spreading import Share
from meter.settlement.usual_use import UsualUse, guess, use_of
from meter.usage.usage import Observation, Source, TokenCounts

# The model, endpoint and account of a statistic; '' stands for all accounts together.
UseKey = tuple[str, str, str]
ALL_ACCOUNTS: Final = ""

# The cost of a request that turns out never to have reached a provider.
_NOTHING: Final = Settled(TokenCounts(0, 0), 0, 0, PriceSource.PROVIDER)


class ConflictKind(StrEnum):
    """The reason for keeping an arrival and raising an alarm instead of applying it."""

    HOLD_NOT_FOUND = "hold_not_found"
    OTHER_AMOUNT = "other_amount"


@dataclass(frozen=True, slots=True)
class HoldOnRecord:
    """A hold with its price, and with what the books say of it so far.

    The price is that of its estimate or, where another provider answered, of that provider.
    `recorded` is None while nothing was charged. `generation_id` names the provider's record to
    ask for; None while it is not known. `has_entry` is False when the hold became unknown because
    no log had an entry for its request.
    """

    hold: Hold
    price: Price
    recorded: Recorded | None
    generation_id: str | None = None
    has_entry: bool = True


@dataclass(slots=True)
class AccountMove:
    """The changes that a batch makes to one account, in pico-dollars."""

    charge_picos: int = 0
    freed_picos: int = 0
    excess_picos: int = 0


@dataclass(slots=True)
class SpendingMove:
    """The changes that a batch makes to the budgets of one key or pass, in pico-dollars.

    One move is about holds that were placed at one instant, because budgets have periods.
    """

    charge_picos: int = 0
    freed_picos: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """The final state of one live hold, with the reason."""

    hold_id: UUID
    state: HoldState
    reason: HoldEnding


# The answers that say that a provider does not take a key. A 403 may be about the prompt as well;
# the client is then answered 403 too.
KEY_REFUSALS: Final = frozenset({401, 402, 403})


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """A provider's refusal of a request because of its key.

    `owner` is the account that the key belongs to; None for our key.
    """

    hold_id: UUID
    owner: str | None
    provider: str
    status: int
    began_at: datetime


@dataclass(slots=True)
class SettlementChanges:
    """All changes of a batch. `duplicates` counts arrivals that change nothing.

    `token_uses` are the tokens that were not yet counted against limits when the holds were
    placed. `unaskable` are those unknown holds whose provider has no records to ask for.
    `uses` is what the settled requests add to the usual use of their models. `parked` are
    observations whose hold or account another transaction keeps locked: they are stored, and
    settled later. `ordinary` are the holds that one statement settled without a decision here, with
    the log that told of each; they are in no other list. `keys_refused` are the keys that
    providers refused, off the default path; they change no books.
    """

    ordinary: dict[UUID, Source] = field(default_factory=dict)
    bookings: list[Booking] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    unknown: list[tuple[Observation, UnknownReason]] = field(default_factory=list)
    unaskable: set[UUID] = field(default_factory=set)
    conflicts: list[tuple[Observation, ConflictKind]] = field(default_factory=list)
    parked: list[Observation] = field(default_factory=list)
    duplicates: int = 0
    moves: dict[str, AccountMove] = field(default_factory=lambda: defaultdict(AccountMove))
    spending: dict[tuple[str, datetime], SpendingMove] = field(
        default_factory=lambda: defaultdict(SpendingMove)
    )
    token_uses: list[TokenUse] = field(default_factory=list)
    uses: dict[UseKey, UsualUse] = field(default_factory=dict)
    keys_refused: list[RefusedKey] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to write."""
        return not (
            self.ordinary
            or self.bookings
            or self.endings
            or self.unknown
            or self.conflicts
            or self.parked
        )

    def book(self, booking: Booking) -> None:
        """Add a usage record with its postings, and move the balance and the budgets by them."""
        self.bookings.append(booking)
        move = self.moves[booking.hold.account_id]
        move.charge_picos += booking.charge_picos
        move.excess_picos += booking.excess_picos
        for spender in booking.hold.spenders:
            self.spending[spender, booking.hold.placed_at].charge_picos += booking.charge_picos

    def learn(self, record: HoldOnRecord, settled: Settled) -> None:
        """Add a request whose use is known to what its model usually uses.

        The hold of a request with an own key bounds a fee, which says little about its prompt.
        """
        hold = record.hold
        if hold.is_own_key:
            return
        use = use_of(hold, record.price, settled)
        for account_id in (hold.account_id, ALL_ACCOUNTS):
            key = (hold.model_id, hold.endpoint, account_id)
            known = self.uses.get(key)
            self.uses[key] = use if known is None else known.plus(use)

    def end(
        self,
        hold: Hold,
        state: HoldState,
        reason: HoldEnding,
        tokens: TokenCounts = TokenCounts(0, 0),  # noqa: B008  # frozen, so sharing it is safe
    ) -> None:
        """End a live hold, free the amount that it set aside, and count the tokens it used."""
        self.endings.append(Ending(hold.id, state, reason))
        self.moves[hold.account_id].freed_picos += hold.amount_picos
        for spender in hold.spenders:
            self.spending[spender, hold.placed_at].freed_picos += hold.amount_picos
        more = tokens.prompt + tokens.completion - hold.counted.tokens
        if hold.counted.buckets and more:
            self.token_uses.append(TokenUse(hold.counted.buckets, more, hold.placed_at))


def changes_from_observations(
    observations: Sequence[Observation],
    records: Mapping[UUID, HoldOnRecord],
    locked: Set[UUID] = frozenset(),
    terms_of: TermsOf = default_terms,
) -> SettlementChanges:
    """Decide a batch in which every hold appears at most once.

    `records` are the holds of the batch that are in the books, and `locked` those that another
    transaction keeps locked. An observation without either is a conflict. Raises InvalidAmount for
    an amount in the provider's own record that fits no ledger.
    """
    changes = SettlementChanges()
    for observation in observations:
        record = records.get(observation.hold_id)
        if observation.hold_id in locked:
            changes.parked.append(observation)
        elif record is None:
            changes.conflicts.append((observation, ConflictKind.HOLD_NOT_FOUND))
        elif record.hold.is_live:
            _end_live(changes, observation, record, terms_of)
        else:
            _apply_after_ending(changes, observation, record, terms_of)
    return changes


def changes_from_policy(
    decisions: Sequence[PolicyDecision],
    records: Mapping[UUID, HoldOnRecord],
    usual: Mapping[UUID, UsualUse],
) -> SettlementChanges:
    """End by policy those holds that are still live; the truth may have arrived meanwhile.

    `usual` gives, by hold, what requests of its model usually use. A hold without one is charged
    by assumption.
    """
    changes = SettlementChanges()
    for decision in decisions:
        record = records.get(decision.hold_id)
        if record is None or not record.hold.is_live:
            changes.duplicates += 1
        elif decision.verdict is PolicyVerdict.VOID:
            changes.end(record.hold, HoldState.EXPIRED, decision.rule.void_ending)
        else:
            estimate = guess(
                record.hold,
                record.price,
                usual.get(record.hold.id),
                decision.streamed_bytes,
                decision.seen_tokens,
            )
            observation = decision.observation(record.hold)
            rule = decision.rule.value
            changes.book(book_provisional(observation, record.hold, estimate, rule))
            changes.end(record.hold, HoldState.SETTLED, HoldEnding.PROVISIONAL, estimate.tokens)
    return changes


def changes_from_shares(
    shares: Sequence[Share],
    records: Mapping[UUID, HoldOnRecord],
    locked: Set[UUID],
) -> SettlementChanges:
    """Correct guesses to their share of a total that is known.

    A guess that was corrected meanwhile, by the truth or by another share, stays as it is.
    """
    changes = SettlementChanges()
    for share in shares:
        record = records.get(share.hold_id)
        recorded = None if record is None else record.recorded
        if (
            record is None
            or recorded is None
            or share.hold_id in locked
            or not recorded.is_provisional
            or recorded.last_revision != share.revision
        ):
            changes.duplicates += 1
            continue
        hold = record.hold
        charge_picos = add_markup(share.cost_picos, hold.markup_bps)
        settled = Settled(recorded.tokens, share.cost_picos, charge_picos, PriceSource.ESTIMATE)
        observation = unseen(hold.id, hold.placed_at, Source.POLICY)
        changes.book(book_correction(observation, hold, settled, recorded))
    return changes


def _end_live(
    changes: SettlementChanges,
    observation: Observation,
    record: HoldOnRecord,
    terms_of: TermsOf,
) -> None:
    hold = record.hold
    if (refused := _key_refused(observation, record)) is not None:
        changes.keys_refused.append(refused)
    terms = terms_of(record.price.provider)
    outcome = decide_outcome(observation, hold, record.price, terms)
    if isinstance(outcome, Settled):
        changes.book(book_settlement(observation, hold, outcome))
        changes.learn(record, outcome)
        changes.end(hold, HoldState.SETTLED, HoldEnding.SETTLED, outcome.tokens)
        return
    if isinstance(outcome, Released):
        changes.end(hold, HoldState.RELEASED, outcome.ending)
        return
    # A hold that is unknown already gains by the first log entry and by the first generation id.
    names_generation = observation.generation_id is not None and record.generation_id is None
    if hold.state is HoldState.OPEN or not record.has_entry or names_generation:
        changes.unknown.append((observation, outcome.reason))
        if not terms.has_records:
            changes.unaskable.add(hold.id)
    else:
        changes.duplicates += 1


def _key_refused(observation: Observation, record: HoldOnRecord) -> RefusedKey | None:
    """Return the refusal of a key. The default path has a way of its own."""
    hold, status = record.hold, observation.provider_status
    is_refused = status in KEY_REFUSALS and (status == 401 or status != observation.status_code)
    if status is None or not is_refused or (observation.provider is None and not hold.is_own_key):
        return None
    provider = observation.provider or record.price.provider
    owner = hold.account_id if hold.is_own_key else None
    return RefusedKey(hold.id, owner, provider, status, observation.started_at)


def _apply_after_ending(
    changes: SettlementChanges,
    observation: Observation,
    record: HoldOnRecord,
    terms_of: TermsOf,
) -> None:
    """Apply an observation of a hold that has ended.

    A hold ends once. A later arrival repeats what is recorded, corrects it, contradicts it, or
    brings the first charge.
    """
    recorded = record.recorded
    terms = terms_of(record.price.provider)
    outcome = decide_outcome(observation, record.hold, record.price, terms)
    if isinstance(outcome, Unknown):
        # Worth a look-up only where the books have no charge or a guess, and the arrival names
        # the generation to ask for.
        is_guess = recorded is None or recorded.is_provisional
        if is_guess and observation.generation_id is not None and terms.has_records:
            changes.unknown.append((observation, outcome.reason))
        else:
            changes.duplicates += 1
        return
    if recorded is None:
        if isinstance(outcome, Settled):
            changes.book(book_late(observation, record.hold, outcome))
        else:
            changes.duplicates += 1
        return
    if isinstance(outcome, Released):
        if not recorded.is_provisional:
            changes.duplicates += 1
            return
        # The policy charged a request that never cost anything.
        outcome = _NOTHING
    # A record of 0 may be a generation that is not priced yet: its later price counts.
    is_priced_now = recorded.cost_picos == 0 and observation.source is Source.LOOKUP
    is_better = observation.source.rank > recorded.source.rank or is_priced_now
    says_the_same = outcome.cost_picos == recorded.cost_picos
    if says_the_same and not (recorded.is_provisional and is_better):
        changes.duplicates += 1
    elif is_better:
        changes.book(book_correction(observation, record.hold, outcome, recorded))
    else:
        changes.conflicts.append((observation, ConflictKind.OTHER_AMOUNT))
