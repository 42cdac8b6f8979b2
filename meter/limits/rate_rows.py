"""Limits in rows of Postgres: those of plans, accounts and credentials have the same columns."""

from typing import TYPE_CHECKING

from meter.limits.limits import Rates

if TYPE_CHECKING:
    from asyncpg import Record


def rates_of(row: "Record", prefix: str = "") -> Rates:
    """Return the limits in a row whose columns begin with `prefix`."""
    return Rates(
        row[f"{prefix}requests_per_minute"],
        row[f"{prefix}tokens_per_minute"],
        row[f"{prefix}concurrent_requests"],
        row[f"{prefix}requests_per_day"],
        row[f"{prefix}requests_per_month"],
    )


def rate_columns(rates: Rates) -> tuple[int | None, ...]:
    """Return limits in the order of their columns."""
    return (
        rates.requests_per_minute,
        rates.tokens_per_minute,
        rates.concurrent_requests,
        rates.requests_per_day,
        rates.requests_per_month,
    )
