"""The ledger: whether the books agree with themselves."""

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import OperatorOnly
from meter.api.dependencies import FromBooks
from meter.api.fields import Reply, Usd
from meter.ledger.verification import Verification as Outcome
from meter.money import format_usd

router = APIRouter(prefix="/api/v1/admin/ledger", tags=["Ledger"], dependencies=OperatorOnly)


class Checked(Reply):
    """How much was checked."""

    postings: int
    entries: int
    accounts: int
    holds: int
    usage_records: int


class Failure(Reply):
    """One broken invariant."""

    invariant: str = Field(examples=["balances"])
    message: str
    count: int
    sample_ids: list[str]


class Verification(Reply):
    """Whether the books agree with themselves, and what they add up to.

    `open_holds`, `unknown_holds`, `stale_open_holds` (open past their limit) and
    `settlement_conflicts` are for people to look after; they do not make the books wrong.
    """

    ok: bool
    checked: Checked
    failures: list[Failure]
    provider_cost_total: Usd
    charge_total: Usd
    excess_total: Usd
    open_holds: int
    unknown_holds: int
    stale_open_holds: int
    settlement_conflicts: int
    took_ms: int


@router.get("/verification", summary="Verify the ledger")
async def verify_ledger(books: FromBooks) -> Verification:
    """Recompute balances, holds and settlements from one snapshot; blocks nobody."""
    started_s = books.clock.monotonic_s()
    async with books.one_verification:
        outcome = await books.verification.verify()
    took_ms = round((books.clock.monotonic_s() - started_s) * 1000)
    return _verification(outcome, took_ms)


def _verification(outcome: Outcome, took_ms: int) -> Verification:
    totals = outcome.totals
    return Verification(
        ok=outcome.is_ok,
        checked=Checked.model_validate(totals),
        failures=[Failure.model_validate(one) for one in outcome.failures],
        provider_cost_total=format_usd(totals.provider_cost_picos),
        charge_total=format_usd(totals.charge_picos),
        excess_total=format_usd(totals.excess_picos),
        open_holds=totals.open_holds,
        unknown_holds=totals.unknown_holds,
        stale_open_holds=totals.stale_open_holds,
        settlement_conflicts=totals.settlement_conflicts,
        took_ms=took_ms,
    )
