"""Billing periods: months and years end on the day they began on, or on the last there is."""

import calendar
from datetime import UTC, datetime, timedelta
from typing import Final

from tollkeeper.simulator.stripe.wire.problem import Json

DAYS: Final = {"day": 1, "week": 7}
MONTHS: Final = {"month": 1, "year": 12}


def period_after(anchor: int, recurring: Json, number: int) -> int:
    """Return when the period of this number, from 0, begins, in seconds."""
    count = number * recurring["interval_count"]
    start = datetime.fromtimestamp(anchor, UTC)
    interval = recurring["interval"]
    if interval in DAYS:
        return int((start + timedelta(days=DAYS[interval] * count)).timestamp())
    months = start.year * 12 + start.month - 1 + MONTHS[interval] * count
    year, month = divmod(months, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return int(start.replace(year=year, month=month + 1, day=day).timestamp())


def next_period(anchor: int, recurring: Json, at: int) -> int:
    """Return when the first period after `at` begins, in seconds."""
    first, last = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(at, UTC)
    interval, count = recurring["interval"], recurring["interval_count"]
    if interval in DAYS:
        passed = (last - first).days // (DAYS[interval] * count)
    else:
        months = 12 * (last.year - first.year) + last.month - first.month
        passed = months // (MONTHS[interval] * count)
    # The day of the month may be still to come.
    number = max(0, passed)
    while (begins := period_after(anchor, recurring, number)) <= at:
        number += 1
    return begins


def share_of_period(amount: int, at: int, start: int, end: int) -> int:
    """Return the part of an amount that is for the time from `at` to the end; rounds half up."""
    length = end - start
    return (2 * amount * (end - at) + length) // (2 * length)
