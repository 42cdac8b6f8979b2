"""Drift between the provider's total and the books: requests in flight never look like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.reconciliation.drift import (
    ROUNDING_PICOS,
    LedgerCost,
    Outside,
    ProviderComparison,
    ProviderTotal,
    compare_provider,
)

USD = 10**12


def look(
    total: int,
    ledger: int,
    in_flight: int = 0,
    recent: int = 0,
    provisional: int = 0,
    baseline: Outside | None = None,
) -> ProviderComparison:
    """One comparison, in pico-dollars."""
    cost = LedgerCost(ledger, recent, in_flight, provisional)
    return compare_provider(ProviderTotal("openrouter", 1, total), cost, baseline)


def test_the_first_look_is_the_baseline() -> None:
    found = look(total=30 * USD, ledger=10 * USD, in_flight=2 * USD)
    assert found.is_new_baseline
    assert found.drift_picos == 0
    assert found.outside == Outside(18 * USD, 20 * USD)


@pytest.mark.parametrize(
    ("total", "in_flight", "drift"),
    [(15, 0, 0), (16, 0, 1), (16, 1, 0), (14, 0, -1), (14, 1, -1), (18, 1, 2)],
)
def test_what_no_request_in_flight_explains_is_drift(
    total: int, in_flight: int, drift: int
) -> None:
    known = Outside(5 * USD, 5 * USD)
    found = look(total * USD, 10 * USD, in_flight * USD, baseline=known)
    assert found.drift_picos == drift * USD
    # A look that contradicts teaches nothing: the next one finds the same drift.
    assert not drift or found.outside == known


def test_what_was_booked_a_moment_ago_may_be_missing_from_the_total() -> None:
    known = Outside(0, 0)
    assert look(total=9 * USD, ledger=10 * USD, recent=USD, baseline=known).drift_picos == 0
    assert look(total=9 * USD, ledger=10 * USD, provisional=USD, baseline=known).drift_picos == 0
    assert look(total=8 * USD, ledger=10 * USD, recent=USD, baseline=known).drift_picos == -USD


def test_a_rounding_is_no_drift() -> None:
    known = Outside(0, 0)
    assert look(USD + ROUNDING_PICOS, USD, baseline=known).drift_picos == 0
    assert look(USD - ROUNDING_PICOS, USD, baseline=known).drift_picos == 0
    assert look(USD + ROUNDING_PICOS + 1, USD, baseline=known).drift_picos == ROUNDING_PICOS + 1


REQUESTS = st.lists(
    # What a request was held for and what it cost; when it was billed and when it was booked.
    st.tuples(st.integers(1, 1000), st.floats(0, 1), st.integers(0, 9), st.integers(0, 9)),
    max_size=30,
)


@given(REQUESTS, st.integers(0, 10**6), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_honest_books_never_drift_whenever_they_are_looked_at(
    requests: list[tuple[int, float, int, int]], outside: int, looks: list[int]
) -> None:
    scale = 10 * ROUNDING_PICOS
    known: Outside | None = None
    for moment in sorted(looks):
        billed = ledger = in_flight = 0
        for held, share, billed_at, lag in requests:
            cost = int(held * share) * scale
            billed += cost if billed_at <= moment else 0
            is_booked = billed_at + lag <= moment
            ledger += cost if is_booked else 0
            in_flight += 0 if is_booked else held * scale
        found = look(outside + billed, ledger, in_flight, baseline=known)
        assert found.drift_picos == 0
        known = found.outside
        assert known.least_picos <= outside <= known.most_picos


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_what_was_never_booked_shows_once_nothing_is_in_flight(lost: int, outside: int) -> None:
    known = Outside(outside, outside)
    picos = lost * ROUNDING_PICOS + 1
    assert look(outside + USD + picos, USD, baseline=known).drift_picos == picos
    assert look(outside + USD - picos, USD, baseline=known).drift_picos == -picos
