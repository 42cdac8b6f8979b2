"""Rules that must hold after every step, judged by other means than those that keep the books.

The checker computes the expected charge of each request itself,
from the message with the highest rank.
"""

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from meter.ledger.postings import LedgerAccount, Posting, Template
from meter.settlement.booking import BookingKind
from meter.settlement.policy import PolicyDecision, PolicyVerdict
from meter.usage.usage import Observation, Source
from tests.laws.state_machine.memory import MemoryBooks
from tests.laws.state_machine.tables import EndedHold

# Whose word counts: written down once more, so that a change there shows here.
NOBODY, POLICY, LOG, PROVIDER = -1, 0, 1, 2


@dataclass(slots=True)
class ExpectedCharge:
    """Return the known cost of a request in pico-dollars, and who said it."""

    rank: int = NOBODY
    cost_picos: int = 0
    has_ended: bool = False


# The postings that may take an account below zero.
OVERDRAWING: Final = frozenset({Template.EXCESS, Template.CORRECTION, Template.PAYMENT_REVERSAL})


class Checker:
    """Follows the books and says which rule they break; raises AssertionError.

    `bill` is what the provider charges, by hold.
    """

    def __init__(self, books: MemoryBooks, bill: dict[UUID, int]) -> None:
        self._books = books
        self._bill = bill
        self._seen_arrivals = 0
        self._expected: dict[UUID, ExpectedCharge] = {}
        self._endings: dict[UUID, EndedHold] = {}
        self._history: list[Posting] = []
        self._customer: defaultdict[str, int] = defaultdict(int)
        self._beyond: defaultdict[str, int] = defaultdict(int)
        self._by_hold: defaultdict[UUID, list[int]] = defaultdict(lambda: [0, 0, 0])
        self.credited: dict[UUID, int] = {}

    def check(self, hold_ids: set[UUID], account_ids: set[str]) -> None:
        """The rules, for what a step has touched."""
        touched = hold_ids | self._read_postings()
        self._read_arrivals()
        for hold_id in touched:
            self._check_hold(hold_id)
        for account_id in account_ids:
            self._check_account(account_id)

    def check_all(self) -> None:
        """The rules, for everything there is, and that nothing of the past was changed (V11)."""
        self.check(set(self._expected) | set(self._books.holds), set(self._books.accounts))
        assert len(self._history) == len(self._books.posted), "V11: a posting went away"
        for known, posting in zip(self._history, self._books.posted.values(), strict=True):
            assert known is posting, "V11: a posting was changed"
        granted = sum(posting.customer_picos for posting, _ in self._books.credits.values())
        assert granted == sum(self.credited.values()), "V8: credits differ from what was paid"

    def check_settled(self) -> None:
        """Once everything has arrived: the ledger is the bill, and nothing is live."""
        self.check_all()
        assert not self._books.holds, "V5: holds are live when nothing is left to come"
        assert not self._books.lookups, "V5: look-ups are left when nothing is left to find out"
        costs = {
            hold_id: sum(one.whole_cost_picos for one in bookings)
            for hold_id, bookings in self._books.records.items()
            if not is_provisional(self._books, hold_id)
        }
        assert {one: cost for one, cost in costs.items() if cost} == self._bill, (
            "V4: the ledger is not the bill"
        )
        for hold_id in self._bill:
            first = [one for one in self._books.records[hold_id] if one.revision == 0]
            assert len(first) == 1, "V3: a row of the bill has other than one settlement"

    def _read_postings(self) -> set[UUID]:
        new = self._books.journal[len(self._history) :]
        self._history += new
        touched = set()
        for posting in new:
            amounts = {entry.ledger_account: entry.amount_picos for entry in posting.entries}
            assert sum(amounts.values()) == 0, "V1: a posting does not sum to zero"
            customer = amounts.get(LedgerAccount.CUSTOMER, 0)
            self._customer[posting.account_id] += customer
            if posting.template in OVERDRAWING:
                self._beyond[posting.account_id] += max(0, -customer)
            if posting.hold_id is not None:
                touched.add(posting.hold_id)
                sums = self._by_hold[posting.hold_id]
                sums[0] -= customer
                sums[1] += amounts.get(LedgerAccount.PROVIDER, 0)
        return touched

    def _read_arrivals(self) -> None:
        arrived = self._books.arrived
        for index in range(self._seen_arrivals, len(arrived)):
            self._believe(arrived[index])
        self._seen_arrivals = len(arrived)

    def _believe(self, arrived: Observation | PolicyDecision) -> None:
        expected = self._expected.setdefault(arrived.hold_id, ExpectedCharge())
        if arrived.hold_id in self._books.ended:
            has_ended, expected.has_ended = expected.has_ended, True
        else:
            has_ended = False
        if isinstance(arrived, PolicyDecision):
            if not has_ended and arrived.verdict is PolicyVerdict.CHARGE:
                first = self._books.records[arrived.hold_id][0]
                assert first.charge_picos <= first.hold.amount_picos, "a guess beyond its hold"
                expected.rank, expected.cost_picos = POLICY, first.whole_cost_picos
            return
        said = _cost_said(arrived)
        if said is None and expected.rank == POLICY and _was_never_billed(arrived):
            said = 0
        rank = PROVIDER if arrived.source is Source.LOOKUP else LOG
        # A record of 0 may be priced later.
        is_priced_now = rank == expected.rank == PROVIDER and expected.cost_picos == 0
        if said is not None and (rank > expected.rank or is_priced_now):
            expected.rank, expected.cost_picos = rank, said

    def _check_hold(self, hold_id: UUID) -> None:
        books = self._books
        ended, is_live = books.ended.get(hold_id), hold_id in books.holds
        assert not (ended and is_live), "V3: a hold is live and ended"
        if ended is not None:
            assert self._endings.setdefault(hold_id, ended) is ended, "V3: a hold ended twice"
        bookings = books.records.get(hold_id, ())
        revisions = [one.revision for one in bookings]
        assert revisions == list(range(len(bookings))), "V3: settled other than once"
        owed, charge = sum(b.cost_picos for b in bookings), sum(b.charge_picos for b in bookings)
        assert self._by_hold[hold_id][:2] == [charge, owed], "V3: ledger and usage differ"
        if not bookings:
            assert is_live or ended is None or ended.hold.state != "settled", "V3: no usage record"
            return
        assert not is_live, "V3: charged while live"
        assert hold_id in self._expected, "V3: charged by what was never committed"
        expected = self._expected[hold_id]
        assert expected.rank >= POLICY, "R4: settled by evidence that says nothing of a cost"
        cost = sum(one.whole_cost_picos for one in bookings)
        assert cost == expected.cost_picos, "V4: charged other than the best word on it"
        markup = bookings[0].hold.markup_bps
        assert owed == (0 if markup < 0 else cost), "V4: the account pays under its own key, not we"
        assert charge == -(-cost * (10_000 + markup) // 10_000), "V4: another markup"
        is_guess = bookings[0].kind is BookingKind.PROVISIONAL
        assert cost == 0 or is_guess or hold_id in self._bill, "V7: settled without a bill row"

    def _check_account(self, account_id: str) -> None:
        account = self._books.accounts[account_id]
        held = sum(
            live.hold.amount_picos
            for live in self._books.holds.values()
            if live.hold.account_id == account_id
        )
        assert account.balance_picos == self._customer[account_id], "V1: balance is not the ledger"
        assert account.held_picos == held, "V2: held is not the sum of the live holds"
        available = account.balance_picos - account.held_picos
        assert available >= -account.overdrawn_picos, "V2: overspent"
        assert account.overdrawn_picos <= self._beyond[account_id], "V2: below zero untagged"


def is_provisional(books: MemoryBooks, hold_id: UUID) -> bool:
    """Return whether the charge is still a guess."""
    bookings = books.records[hold_id]
    return len(bookings) == 1 and bookings[0].kind is BookingKind.PROVISIONAL


def _cost_said(seen: Observation) -> int | None:
    """In pico-dollars; a log that says zero says nothing, for here nothing is free."""
    if seen.usage is None or seen.usage.cost_usd is None:
        return None
    cost = int(seen.usage.cost_usd * Decimal(10**12))
    return cost if cost or seen.source is Source.LOOKUP else None


def _was_never_billed(seen: Observation) -> bool:
    return not seen.reached_provider or seen.provider_status == 429
