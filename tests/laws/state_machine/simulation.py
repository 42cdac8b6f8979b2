"""Random steps of everything that happens to money, from one seed.

Requests are held, run, billed, logged twice, reported, looked up, given up and guessed; messages
are lost, late, doubled and wrong; the meter dies between any two writes and goes on.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from meter.errors import Conflict
from meter.holds.hold import HoldEnding, HoldPlaced, HoldRequest, HoldState
from meter.ledger.postings import credit, payment, payment_reversal
from meter.pricing.prices import Estimate, Price
from meter.settlement.policy import PolicyDecision, choose_rule
from meter.usage.usage import Observation, Source
from tests.laws.state_machine.checks import Checker
from tests.laws.state_machine.memory import MemoryBooks
from tests.laws.state_machine.provider import TICK, Generation, Provider, record_of
from tests.laws.state_machine.tables import Account, Crash, Rules

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNTS: Final = ("ada", "bob", "cyd", "dan", "eve")
PRICE: Final = Price(1, "m", BEGINNING, 150_000, 600_000)
LIVE_MOST: Final = 60
TOLD: Final = 0.9
STUCK: Final = 0.1
STUCK_LEAST: Final = 40
REPORTS_KEPT: Final = 50
# As an administrator's reconciliation does: also for requests that nobody could ask about.
ARE_RECORDS_ASKED_AT_THE_END: Final = True
ASKED_AFTER_DECISION: Final = timedelta(days=1)
CHECK_ALL_EVERY: Final = 2_000
FIXED: Final = (0, 1, 10**6, 3 * 10**8, 10**9, 5 * 10**9)
PER_TOKEN: Final = (0, 600_000, 840_000)
OUR_MARKUPS: Final = (0, 1, 2_500, 4_000)
# And two of own keys, without a fee and with one.
MARKUPS: Final = (*OUR_MARKUPS, -10_000, -9_500)
# Some can hardly ever pay, so that what is beyond a balance is met all the time.
POOR: Final = frozenset({"dan", "eve"})
LITTLE: Final = (1, 10**6, 10**9, 3 * 10**9, -1, 10**8, -(10**8))
AMOUNTS: Final = (1, 10**6, 10**11, 5 * 10**11, 10**11, -1, -(10**9), -(10**11))


# Of so many credits one is a payment, and one a refund, which may take more than there is.
PAID_EVERY: Final = 6


class Simulation:
    """One run. `has_reports` is whether the provider reports what it bills.

    With `sells`, credit is also paid for and refunded.
    """

    def __init__(
        self,
        seed: int,
        rules: Rules | None = None,
        may_crash: bool = True,
        make_books: type[MemoryBooks] = MemoryBooks,
        sells: bool = True,
    ) -> None:
        self.random = random.Random(seed)  # a seed is to replay a run, not to hide
        self.books = make_books(PRICE, BEGINNING, rules or Rules())
        self.books.accounts.update({account_id: Account() for account_id in ACCOUNTS})
        self.provider = Provider(self.random)
        self.checker = Checker(self.books, self.provider.bill)
        self.has_reports = seed % 2 == 0
        self.crashes = 0
        self._may_crash = may_crash
        self._sells = sells
        self._flying: list[Observation] = []
        self._past: list[Observation] = []
        self._stuck: list[Observation] = []
        self._orphans: list[UUID] = []
        self._credits = 0
        self._holds: set[UUID] = set()
        self._accounts: set[str] = set()
        self._steps = self._weigh()

    def _weigh(self) -> list[Callable[[], None]]:
        weights: dict[Callable[[], None], int] = {
            self._request: 26,
            self._deliver: 36,
            self._redeliver: 12,
            self._report: 6,
            self._look_up: 12,
            self._take_back: 2,
            self._sweep: 1,
            self._credit: 5,
            self._write_off: 1,
        }
        return [step for step, weight in weights.items() for _ in range(weight)]

    def run(self, steps: int) -> None:
        """Take steps and check the rules after each; then let everything arrive, and check all."""
        for number in range(1, steps + 1):
            self.step()
            if number % CHECK_ALL_EVERY == 0:
                self.checker.check_all()
        self.finish()

    def step(self) -> None:
        """One thing happens, whole or cut off by the end of the process."""
        chance = self.random.random
        self.books.now += TICK if chance() < 0.1 else timedelta(microseconds=1)
        if self._may_crash and chance() < 0.15:
            self.books.crash_in = int(chance() * 12)
        self._holds.clear()
        self._accounts.clear()
        try:
            self._steps[int(chance() * len(self._steps))]()
        except Crash:
            self.crashes += 1
        self.books.crash_in = None
        self.checker.check(self._holds, self._accounts)

    def finish(self) -> None:
        """Everything arrives after all, in some order, and is looked up; then the bill is paid."""
        self.random.shuffle(self._past)
        for message in self._past:
            self.books.settle([message])
        if self.has_reports:
            for generation in self.provider.generations.values():
                self._note(generation)
        # Past every limit: what is open expires, what is unknown is found out or decided.
        for _ in range(3):
            self.books.now += timedelta(days=1)
            self.books.expire()
            for hold_id in list(self.books.lookups):
                self._look_up_one(hold_id)
                # At once: what arrived before a hold ended differs from what arrived after.
                self.checker.check(self._holds, self._accounts)
        for generation in self.provider.generations.values():
            if ARE_RECORDS_ASKED_AT_THE_END:
                self.books.settle([record_of(generation, self.books.now)])
        self.checker.check_settled()

    def _any(self, items: list[Observation]) -> int:
        return int(self.random.random() * len(items))

    # What callers and providers do

    def _request(self) -> None:
        if len(self.books.holds) >= LIVE_MOST:
            return
        pick = self.random.choice
        hold_id = UUID(int=self.random.getrandbits(128))
        most = pick((16, 100, 4_000))
        asked = Estimate(1, pick(MARKUPS), pick(FIXED), pick(PER_TOKEN), most, pick((0, most)), 0)
        request = HoldRequest(hold_id, pick(ACCOUNTS), "c", "m", "chat_completions", asked)
        self._touch(hold_id, request.account_id)
        # A process that dies before its answer lets no request through, held or not.
        self._orphans.append(hold_id)
        (answer,) = self.books.place([request])
        if isinstance(answer, HoldPlaced) and self.random.random() < 0.95:
            self._orphans.remove(hold_id)
            self._run(hold_id)

    def _run(self, hold_id: UUID) -> None:
        """The request is made after all; each of two logs may tell of it."""
        seen = self.provider.answer(hold_id, self.books.now)
        for source in (Source.STREAM, Source.FILE):
            if self.random.random() < TOLD:
                self._tell(replace(seen, source=source))

    def _tell(self, message: Observation) -> None:
        is_stuck = self.random.random() < STUCK
        (self._stuck if is_stuck else self._flying).append(message)
        self._past.append(message)

    # What the meter does

    def _deliver(self) -> None:
        if not self._flying:
            return
        batch = [self._any(self._flying) for _ in range(1 + int(self.random.random() * 3))]
        messages = [self._flying[index] for index in batch]
        self._settle(messages)
        if self.random.random() < 0.8:
            # Done with; what was not acknowledged comes again.
            for index in sorted(set(batch), reverse=True):
                self._flying[index] = self._flying[-1]
                self._flying.pop()

    def _redeliver(self) -> None:
        if len(self._stuck) > STUCK_LEAST and self.random.random() < 0.2:
            # Long after its hold was ended by others.
            self._settle([self._stuck.pop(int(self.random.random() * STUCK_LEAST))])
        elif self._past:
            recent = self._past[-200:] if self.random.random() < 0.8 else self._past
            self._settle([recent[self._any(recent)]])

    def _settle(self, messages: list[Observation]) -> None:
        for message in messages:
            self._touch(message.hold_id)
        self.books.settle(messages)

    def _report(self) -> None:
        recent = list(islice(reversed(self.provider.generations.values()), REPORTS_KEPT))
        if self.has_reports and recent:
            generation = recent[int(self.random.random() * len(recent))]
            self._touch(generation.hold_id)
            self._note(generation)

    def _is_own_key(self, hold_id: UUID) -> bool:
        known = self.books.holds.get(hold_id) or self.books.ended[hold_id]
        return known.hold.is_own_key

    def _note(self, generation: Generation) -> None:
        if self._is_own_key(generation.hold_id):
            # It is reported to whom it is billed.
            return
        self.books.note(generation.hold_id, generation.id, generation.cost_picos)

    def _look_up(self) -> None:
        if self.books.lookups:
            waiting = list(self.books.lookups)
            self._look_up_one(waiting[int(self.random.random() * len(waiting))])

    def _look_up_one(self, hold_id: UUID) -> None:
        """As a `LookupWorker` takes one look-up through one step."""
        self._touch(hold_id)
        lookup, ended = self.books.lookups[hold_id], self.books.ended.get(hold_id)
        is_overdue = lookup.deadline_at <= self.books.now
        is_settled = ended is not None and ended.reason is HoldEnding.SETTLED
        if is_settled and not lookup.is_disputed and not lookup.is_watched:
            self.books.forget_lookup(hold_id)
        elif lookup.generation_id is None:
            if hold_id not in self.books.holds:
                self.books.forget_lookup(hold_id)
            elif is_overdue:
                self._decide(hold_id)
                self.books.forget_lookup(hold_id)
        else:
            self._ask(hold_id, lookup.generation_id, is_overdue)

    def _ask(self, hold_id: UUID, generation_id: str, is_overdue: bool) -> None:
        # An error may name a generation that the provider never bills.
        generation = self.provider.generations.get(generation_id)
        lookup = self.books.lookups[hold_id]
        if generation is not None and generation.recorded_at <= self.books.now:
            self.books.settle([record_of(generation, self.books.now)])
            is_priced = generation.priced_at <= self.books.now
            (self._forget if is_priced else self._watch)(hold_id)
        elif is_overdue and not lookup.is_decided:
            self._decide(hold_id)
            self.books.mark_decided(hold_id)
        elif lookup.deadline_at + ASKED_AFTER_DECISION <= self.books.now:
            self._forget(hold_id)

    def _forget(self, hold_id: UUID) -> None:
        self.books.forget_lookup(hold_id)

    def _watch(self, hold_id: UUID) -> None:
        self.books.watch(hold_id)

    def _decide(self, hold_id: UUID) -> None:
        lookup = self.books.lookups[hold_id]
        has_reports = self.has_reports and not self._is_own_key(hold_id)
        rule = choose_rule(lookup.seen, lookup.generation_id, has_reports)
        decision = PolicyDecision(hold_id, rule.verdict, rule, lookup.seen)
        self.books.end_by_policy([decision])

    def _take_back(self) -> None:
        if not self._orphans:
            return
        hold_id = self._orphans[int(self.random.random() * len(self._orphans))]
        self._touch(hold_id)
        self.books.release([hold_id], HoldEnding.TAKEN_BACK)
        self._orphans.remove(hold_id)

    def _sweep(self) -> None:
        self.books.expire()
        now = self.books.now
        for live in self.books.holds.values():
            assert live.hold.state is HoldState.UNKNOWN or live.expires_at > now, "V5: overdue"

    def _credit(self) -> None:
        """Credit that is given, taken, paid or refunded; now and then one that came before."""
        is_new = self.random.random() < 0.8 or not self._credits
        number = self._credits if is_new else int(self.random.random() * self._credits)
        self._credits += is_new
        account_id = ACCOUNTS[number % len(ACCOUNTS)]
        amounts = LITTLE if account_id in POOR else AMOUNTS
        amount = amounts[number % len(amounts)]
        posting = credit(account_id, str(number), amount, "because")
        if self._sells and number % PAID_EVERY == 0:
            posting = payment(account_id, f"pi_{number}", abs(amount))
        elif self._sells and number % PAID_EVERY == 1:
            amount = -abs(amount)
            posting = payment_reversal(account_id, f"re_{number}", amount, "refund")
        self._accounts.add(account_id)
        try:
            self.books.post_credit(posting)
        except Conflict:
            return
        finally:
            if posting.id in self.books.credits:
                self.checker.credited[posting.id] = posting.customer_picos

    def _write_off(self) -> None:
        account_id = ACCOUNTS[int(self.random.random() * len(ACCOUNTS))]
        self._accounts.add(account_id)
        self.books.write_off_debt(account_id)

    def _touch(self, hold_id: UUID, account_id: str | None = None) -> None:
        self._holds.add(hold_id)
        known = self.books.holds.get(hold_id) or self.books.ended.get(hold_id)
        if account_id is None and known is not None:
            account_id = known.hold.account_id
        if account_id is not None:
            self._accounts.add(account_id)
