"""The ledger: whether the books agree with themselves."""

from datetime import date
from typing import Final

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Reply, Usd
from meter.api.services import FromClock, FromHistory, FromVerification
from meter.history.month_store import Month
from meter.ledger.verification import Verification
from meter.money import format_usd

_MONTH: Final = "%Y-%m"

router = APIRouter(prefix="/api/v1/admin/ledger", tags=["Ledger"], dependencies=AdministratorsOnly)


class CheckedReply(Reply):
    """How much was checked."""

    postings: int
    entries: int
    accounts: int
    holds: int
    usage_records: int


class FailureReply(Reply):
    """One broken invariant."""

    invariant: str = Field(examples=["balances"])
    message: str
    count: int
    sample_ids: list[str]


class ChainHeadReply(Reply):
    """The youngest batch of the ledger's chain. Write it down where nobody who can reach the
    database can: later it shows whether the chain was made anew."""

    number: int
    hash: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])


class DroppedMonthReply(Reply):
    """A month of which only sealed totals are left; they are part of every sum."""

    kind: str = Field(examples=["usage", "ledger"])
    month: str = Field(examples=["2026-01"])


class VerificationReply(Reply):
    """Whether the books agree with themselves, and what they add up to.

    `open_holds`, `unknown_holds`, `stale_open_holds` (open past their limit) and
    `settlement_conflicts` are for people to look after; they do not make the books wrong.
    """

    ok: bool
    checked: CheckedReply
    failures: list[FailureReply]
    provider_cost_total: Usd
    charge_total: Usd
    excess_total: Usd
    open_holds: int
    unknown_holds: int
    stale_open_holds: int
    settlement_conflicts: int
    provisional_records: int
    head: ChainHeadReply | None
    dropped_months: list[DroppedMonthReply]
    took_ms: int


class MonthReply(Reply):
    """One month of usage (with ended holds) or of the ledger."""

    kind: str = Field(examples=["usage", "ledger"])
    month: str = Field(examples=["2026-01"])
    is_kept: bool
    dropped_at: Instant | None
    bytes_on_disk: int | None = Field(description="null once it is dropped")

    @classmethod
    def from_stored(cls, stored: Month) -> "MonthReply":
        return cls(
            kind=stored.kind,
            month=_month(stored.month),
            is_kept=stored.is_kept,
            dropped_at=stored.dropped_at,
            bytes_on_disk=stored.bytes_on_disk,
        )


class MonthListReply(Reply):
    """Every month known, oldest first."""

    data: list[MonthReply]


@router.get("/months", summary="List the months of history")
async def list_months(history: FromHistory) -> MonthListReply:
    """Which months are kept in detail, those made in advance included, and which were dropped."""
    months = await history.list_months()
    return MonthListReply(data=[MonthReply.from_stored(one) for one in months])


@router.get("/verification", summary="Verify the ledger")
async def verify_ledger(clock: FromClock, verification: FromVerification) -> VerificationReply:
    """Recompute balances, holds and settlements from one snapshot; blocks nobody."""
    started_s = clock.monotonic_s()
    outcome = await verification.verify()
    took_ms = round((clock.monotonic_s() - started_s) * 1000)
    return _verification(outcome, took_ms)


def _verification(outcome: Verification, took_ms: int) -> VerificationReply:
    totals, head = outcome.totals, outcome.head
    return VerificationReply(
        ok=outcome.is_ok,
        checked=CheckedReply.model_validate(totals),
        failures=[FailureReply.model_validate(one) for one in outcome.failures],
        provider_cost_total=format_usd(totals.provider_cost_picos),
        charge_total=format_usd(totals.charge_picos),
        excess_total=format_usd(totals.excess_picos),
        open_holds=totals.open_holds,
        unknown_holds=totals.unknown_holds,
        stale_open_holds=totals.stale_open_holds,
        settlement_conflicts=totals.settlement_conflicts,
        provisional_records=totals.provisional_records,
        head=None if head is None else ChainHeadReply(number=head.number, hash=head.hash.hex()),
        dropped_months=[
            DroppedMonthReply(kind=one.kind, month=_month(one.month))
            for one in outcome.dropped_months
        ],
        took_ms=took_ms,
    )


def _month(first_day: date) -> str:
    return first_day.strftime(_MONTH)
