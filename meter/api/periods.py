"""Periods of whole days (UTC), as queries name them."""

from datetime import UTC, date, timedelta
from typing import Annotated, Final

from fastapi import Query
from pydantic import Field

from meter.api.problems import ProblemError
from meter.clock import Clock

MAX_RANGE_DAYS: Final = 366
DEFAULT_RANGE_DAYS: Final = 30

# Far enough from the ends of the calendar that a day can be added or taken away.
Day = Annotated[
    date,
    Field(
        ge=date(2000, 1, 1),
        le=date(2999, 12, 31),
        json_schema_extra={"pattern": r"^2\d{3}-\d\d-\d\d$"},
    ),
]
FirstDay = Annotated[
    Day | None,
    Query(alias="from", description="First day, from 2000 to 2999; by default 29 days before `to`"),
]
LastDay = Annotated[
    Day | None, Query(alias="to", description="Last day, included; by default today")
]


def read_period(first: date | None, last: date | None, clock: Clock) -> tuple[date, date]:
    """Return the first and the last day of a period, with the defaults where a query names none.

    Raises ProblemError (422) for a period that ends before it begins, or is too long.
    """
    last = last or clock.now().astimezone(UTC).date()
    first = first or last - timedelta(days=DEFAULT_RANGE_DAYS - 1)
    if first > last:
        raise ProblemError(422, "invalid_period", "query.from: must not be after `to`")
    if (last - first).days >= MAX_RANGE_DAYS:
        message = f"query.from: the period may have {MAX_RANGE_DAYS} days at most"
        raise ProblemError(422, "invalid_period", message)
    return first, last
