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


def share_of_period(amount: int, at: int, start: int, end: int) -> int:
    """Return the part of an amount that is for the time from `at` to the end; rounds half up."""
    length = end - start
    return (2 * amount * (end - at) + length) // (2 * length)
