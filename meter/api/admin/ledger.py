"""The ledger: its verification, and its months of history."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator, Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Instant, Reply, Usd
from meter.api.services import FromClock, FromHistory, FromVerification
from meter.money import format_usd

router = APIRouter(prefix="/api/v1/admin/ledger", tags=["Ledger"], dependencies=AdministratorsOnly)
MonthName = Annotated[
    str,
    BeforeValidator(lambda day: f"{day:%Y-%m}" if isinstance(day, date) else day),
    Field(examples=["2026-01"]),
]


class CheckedReply(Reply):
    """The numbers of rows that were checked."""

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
    """The youngest batch of the ledger's chain.

    Store it where nobody with access to the database can change it: a later comparison shows
    whether the chain was rewritten.
    """

    number: int
    hash: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])


class DroppedMonthReply(Reply):
    """A month of which only sealed totals are left; every sum includes them."""

    kind: str = Field(examples=["usage", "ledger"])
    month: MonthName


class VerificationReply(Reply):
    """The result of a verification, with the totals of the books.

    An administrator should review `unknown_holds`, `stale_open_holds` (open past their limit) and
    `settlement_conflicts`; they do not make the books wrong.
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
    month: MonthName
    is_kept: bool
    dropped_at: Instant | None
    bytes_on_disk: int | None = Field(description="null once it is dropped")


class MonthListReply(Reply):
    """All known months, oldest first."""

    data: list[MonthReply]


@router.get("/months", summary="List the months of history")
async def list_months(history: FromHistory) -> MonthListReply:
    """List the months of history: kept in detail, prepared in advance, or dropped."""
    return MonthListReply.model_validate({"data": await history.list_months()})


@router.get("/verification", summary="Verify the ledger")
async def verify_ledger(clock: FromClock, verification: FromVerification) -> VerificationReply:
    """Recompute balances, holds and settlements in chunks, without blocking requests."""
    started_s = clock.monotonic_s()
    outcome = await verification.verify()
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
        dropped_months=[DroppedMonthReply.model_validate(one) for one in outcome.dropped_months],
        took_ms=round((clock.monotonic_s() - started_s) * 1000),
    )
