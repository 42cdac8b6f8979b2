"""Money: exact both ways, one rounding rule, nothing else accepted."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.errors import InvalidAmount
from meter.money import MAX_PICOS, add_markup, format_usd, parse_usd, picos_from_decimal

PICOS = st.integers(-MAX_PICOS, MAX_PICOS)


@given(PICOS)
def test_what_is_written_reads_back(picos: int) -> None:
    assert parse_usd(format_usd(picos)) == picos


@pytest.mark.parametrize(
    ("text", "picos"),
    [
        ("5.00", 5 * 10**12),
        ("0.000000000001", 1),
        ("-1.5", -1_500_000_000_000),
        ("99.999709", 99_999_709_000_000),
        ("9223372.036854775807", MAX_PICOS),
    ],
)
def test_amounts_are_read(text: str, picos: int) -> None:
    assert parse_usd(text) == picos


@pytest.mark.parametrize(
    "text",
    ["", "5.", ".5", "1e3", "+1", "01", "NaN", "Infinity", "1_0", " 1", "1 ", "٣", "-", "--1",
     "0.0000000000001", "9223372.036854775808", "9" * 40, "1,5", "$5"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_usd(text)


@pytest.mark.parametrize(
    ("usd", "picos"),
    [("1.5e-05", 15_000_000), ("0.0000000000001", 1), ("0", 0), ("1E+3", 10**15)],
)
def test_provider_numbers_round_up_at_the_twelfth_decimal(usd: str, picos: int) -> None:
    assert picos_from_decimal(Decimal(usd)) == picos


@pytest.mark.parametrize("usd", ["NaN", "Infinity", "-Infinity", "1e10", "1e999999"])
def test_provider_numbers_that_are_no_money_are_refused(usd: str) -> None:
    with pytest.raises(InvalidAmount):
        picos_from_decimal(Decimal(usd))


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 1_000_000))
def test_a_sum_of_estimates_is_never_below_the_charge_of_the_sum(
    one: int, other: int, markup_bps: int
) -> None:
    apart = add_markup(one, markup_bps) + add_markup(other, markup_bps)
    together = add_markup(one + other, markup_bps)
    assert together <= apart <= together + 1


@given(st.integers(0, 10**15), st.integers(0, 1_000_000))
def test_a_charge_is_never_below_its_cost(cost: int, markup_bps: int) -> None:
    charge = add_markup(cost, markup_bps)
    assert cost <= charge
    assert 0 <= charge * 10_000 - cost * (10_000 + markup_bps) < 10_000
