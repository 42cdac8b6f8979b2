"""Money in any order, with the process dying anywhere: the rules hold after every single step."""

import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

import meter.settlement.changes
import meter.usage.usage
from meter.errors import BrokenInvariant
from meter.holds.hold import Hold, HoldEnding
from meter.ledger.postings import Template
from meter.money import BPS_PER_WHOLE, add_markup
from meter.pricing.prices import Price
from meter.settlement.billing_terms import BillingTerms, TermsOf
from meter.settlement.booking import Booking, BookingKind, book_settlement
from meter.settlement.changes import HoldOnRecord, SettlementChanges
from meter.settlement.changes import _apply_after_ending as apply_after_ending
from meter.settlement.outcome import (
    _OPENROUTER,
    Outcome,
    PriceSource,
    Released,
    Settled,
    Unknown,
    UnknownReason,
    decide_outcome,
)
from meter.usage.usage import Observation, Source
from tests.laws.state_machine.simulation import OUR_MARKUPS, Simulation
from tests.laws.state_machine.tables import Rules

WEAK = frozenset({UnknownReason.FAILED, UnknownReason.ZERO_COST, UnknownReason.NO_COST})
SEEDS = range(6)
STEPS = 20_000
# A fifth of what an idle core does: machines are busy, and this must not fail for that.
STEPS_PER_SECOND_LEAST = 4_000
NEGATIVE_SEEDS = range(100, 104)
# With provider reports (even seeds), and nothing that only a last look at all records finds out.
SEEDS_WITHOUT_A_LAST_LOOK = (102, 104, 106)
NEGATIVE_STEPS = 4_000


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_hold_after_every_step(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed is in the name of the test; `python -m tests.laws.state_machine` replays it."""
    simulation = Simulation(seed)
    # Of this process: what else the machine does is not measured.
    began = time.process_time()
    simulation.run(STEPS)
    per_second = STEPS / (time.process_time() - began)
    with capsys.disabled():
        print(f"\nseed {seed}: {per_second:,.0f} steps/s, {simulation.crashes} crashes")  # noqa: T201
    assert per_second > STEPS_PER_SECOND_LEAST
    check_that_much_happened(simulation)


def check_that_much_happened(simulation: Simulation) -> None:
    """A run in which nothing goes wrong would prove nothing."""
    bookings = [one for records in simulation.books.records.values() for one in records]
    kinds = {kind: sum(one.kind == kind for one in bookings) for kind in BookingKind}
    assert simulation.crashes > 500
    assert all(count > 0 for count in kinds.values()), kinds
    templates = {posting.template for posting in simulation.books.journal}
    # Credit that expires has a model and steps of its own: `tests/credit_lots.py`.
    assert templates == set(Template) - {Template.EXPIRY}
    assert any(account.balance_picos < 0 for account in simulation.books.accounts.values())


def is_red(rules: Rules | None = None, seeds: Iterable[int] = NEGATIVE_SEEDS) -> bool:
    """Return whether a checker notices, on any of a few seeds."""
    return any(_breaks(Simulation(seed, rules)) for seed in seeds)


def _breaks(simulation: Simulation) -> bool:
    try:
        simulation.run(NEGATIVE_STEPS)
    except (AssertionError, BrokenInvariant):
        # The second is a constraint of the database that notices by itself.
        return True
    return False


def test_without_a_rule_off_the_same_seeds_are_green() -> None:
    assert not is_red()


@pytest.mark.parametrize(
    "rules",
    [
        Rules(has_unique_endings=False),
        Rules(has_atomic_commits=False),
        Rules(has_guarded_balances=False),
    ],
    ids=["unique endings", "atomic commits", "guarded balances"],
)
def test_a_checker_notices_that_the_store_keeps_a_rule_no_more(rules: Rules) -> None:
    assert is_red(rules)


def clamped(observation: Observation, hold: Hold, settled: Settled) -> Booking:
    """A charge beyond the hold is forgotten, which rule R5 forbids."""
    cost = settled.cost_picos
    if hold.own_key_fee_bps != 0:
        cost = min(cost, hold.amount_picos * BPS_PER_WHOLE // (BPS_PER_WHOLE + hold.markup_bps))
    charge = add_markup(cost, hold.markup_bps)
    return book_settlement(
        observation, hold, replace(settled, cost_picos=cost, charge_picos=charge)
    )


def forgotten(
    changes: SettlementChanges,
    observation: Observation,
    record: HoldOnRecord,
    terms_of: TermsOf,
) -> None:
    """Take a charge that comes after a release for a repetition."""
    terms = terms_of(record.price.provider)
    outcome = decide_outcome(observation, record.hold, record.price, terms)
    if record.recorded is None and isinstance(outcome, Settled):
        changes.duplicates += 1
    else:
        apply_after_ending(changes, observation, record, terms_of)


def test_a_checker_notices_that_excess_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.settlement.changes, "book_settlement", clamped)
    assert is_red()


def test_a_checker_notices_that_late_charges_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.settlement.changes, "_apply_after_ending", forgotten)
    assert is_red()


@pytest.mark.parametrize("source", [Source.LOOKUP, Source.POLICY])
def test_a_checker_notices_that_a_rank_is_ignored(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(meter.usage.usage._RANKS, source, Source.STREAM.rank)
    assert is_red()


def believing(
    seen: Observation, hold: Hold, price: Price, terms: BillingTerms = _OPENROUTER
) -> Outcome:
    """Take an error for unbilled at once, and zeros for a cost: what rule R4 forbids."""
    outcome = decide_outcome(seen, hold, price, terms)
    if isinstance(outcome, Unknown) and outcome.reason in WEAK:
        if seen.usage is None:
            return Released(HoldEnding.REFUSED_UPSTREAM)
        return Settled(seen.usage.tokens, 0, 0, PriceSource.PROVIDER)
    return outcome


def test_a_checker_notices_that_weak_evidence_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.settlement.changes, "decide_outcome", believing)
    assert is_red()


def test_a_checker_notices_that_a_record_of_nought_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.laws.state_machine.simulation.ARE_RECORDS_ASKED_AT_THE_END", False)
    # Nobody reports to us what is billed to an own key: a last look alone finds it out.
    monkeypatch.setattr("tests.laws.state_machine.simulation.MARKUPS", OUR_MARKUPS)
    assert not is_red(seeds=SEEDS_WITHOUT_A_LAST_LOOK)
    monkeypatch.setattr(Simulation, "_watch", Simulation._forget)
    assert is_red(seeds=SEEDS_WITHOUT_A_LAST_LOOK)


def test_a_run_is_the_same_again() -> None:
    first, second = Simulation(7), Simulation(7)
    for simulation in (first, second):
        simulation.run(2_000)
    assert first.books.journal == second.books.journal
    assert first.books.accounts == second.books.accounts
