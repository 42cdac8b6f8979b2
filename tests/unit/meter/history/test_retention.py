"""The choice of the months of history that are over."""

from datetime import UTC, date, datetime

import pytest

from meter.errors import InvalidRequest
from meter.history.month_store import Month, next_month
from meter.history.retention import Retention, months_before

NOW = datetime(2031, 3, 15, tzinfo=UTC)


def months(kind: str) -> list[Month]:
    """October 2030 to March 2031, all kept."""
    firsts = [date(2030, month, 1) for month in (10, 11, 12)]
    firsts += [date(2031, month, 1) for month in (1, 2, 3)]
    return [Month(kind, first, 8192, None) for first in firsts]


def test_nothing_is_over_where_everything_is_kept() -> None:
    assert Retention().to_drop(months("usage") + months("ledger"), NOW.date()) == []


def test_the_present_month_and_so_many_before_it_stay() -> None:
    retention = Retention(usage_months=2, ledger_months=4)
    over = retention.to_drop(months("ledger") + months("usage"), NOW.date())
    assert [(one.kind, one.month.isoformat()) for one in over] == [
        ("usage", "2030-10-01"),
        ("usage", "2030-11-01"),
        ("usage", "2030-12-01"),
        ("ledger", "2030-10-01"),
    ]


def test_what_was_dropped_is_not_dropped_again() -> None:
    dropped = Month("usage", date(2030, 1, 1), None, NOW)
    assert Retention(usage_months=2).to_drop([dropped], NOW.date()) == []


@pytest.mark.parametrize("terms", [(1, None), (2, 1), (None, 6), (6, 5), (0, 0)])
def test_a_retention_that_makes_no_sense_is_refused(terms: tuple[int | None, int | None]) -> None:
    with pytest.raises(InvalidRequest):
        Retention(*terms)


def test_months_are_counted_over_the_end_of_the_year() -> None:
    assert months_before(date(2031, 3, 31), 0) == date(2031, 3, 1)
    assert months_before(date(2031, 3, 31), 3) == date(2030, 12, 1)
    assert months_before(date(2031, 1, 1), 25) == date(2028, 12, 1)
    assert next_month(date(2030, 12, 1)) == date(2031, 1, 1)
    assert next_month(date(2030, 1, 31)) == date(2030, 2, 1)
