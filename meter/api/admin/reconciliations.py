"""Reconciliations: comparisons of the books with one another and with the provider's total."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AliasPath, Field

from meter.api.admin.ledger import FailureReply
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromAudit, FromCursors, FromReconciler
from meter.audit.events import AuditEvent

router = APIRouter(
    prefix="/api/v1/admin/reconciliations", tags=["Ledger"], dependencies=AdministratorsOnly
)


class ComparedBookReply(Reply):
    """Two books side by side; `drift` adds up the differences of all users without their signs."""

    book: str = Field(examples=["charges", "costs", "holds", "balances", "credits"])
    expected: Usd = Field(validation_alias="expected_picos")
    found: Usd = Field(validation_alias="found_picos")
    drift: Usd = Field(validation_alias="drift_picos")
    users_differing: int = Field(validation_alias="differing")


class ComparedProviderReply(Reply):
    """The provider's total for one key beside the costs in the books.

    The amount that was billed to the key outside these books lies between `outside_least` and
    `outside_most`. `drift` is the amount that contradicts this range: above zero, the provider
    billed more than the books explain.
    """

    provider: str = Field(validation_alias=AliasPath("total", "provider"))
    key_version: int = Field(validation_alias=AliasPath("total", "key_version"))
    provider_total: Usd = Field(validation_alias=AliasPath("total", "total_picos"))
    ledger_cost: Usd = Field(validation_alias=AliasPath("cost", "ledger_picos"))
    in_flight: Usd = Field(
        validation_alias=AliasPath("cost", "in_flight_picos"),
        description="The most that live holds may be billed",
    )
    provisional: Usd = Field(
        validation_alias=AliasPath("cost", "provisional_picos"),
        description="Charged by policy, and perhaps never billed",
    )
    outside_least: Usd = Field(validation_alias=AliasPath("outside", "least_picos"))
    outside_most: Usd = Field(validation_alias=AliasPath("outside", "most_picos"))
    drift: Usd = Field(validation_alias="drift_picos")
    is_new_baseline: bool


class CorrectedGuessesReply(Reply):
    """Charges by policy that were corrected, so that they add up to the provider's total."""

    requests: int
    moved: Usd = Field(
        validation_alias="moved_picos",
        description="Difference of their cost; negative where the guesses were too high",
    )


class AttentionReply(Reply):
    """Counts for an administrator to review; the first three since the last reconciliation."""

    settlement_conflicts: int
    policy_charges: int
    policy_voids: int
    unknown_holds: int
    stale_holds: int
    stuck_holds: int


class ReconciliationReply(Reply):
    """One report. `ok` means that no book contradicts another. Nothing is repaired."""

    id: int
    at: Instant
    ok: bool = Field(validation_alias=AliasPath("report", "is_ok"))
    books: list[ComparedBookReply] = Field(validation_alias=AliasPath("report", "books"))
    failures: list[FailureReply] = Field(validation_alias=AliasPath("report", "failures"))
    attention: AttentionReply = Field(validation_alias=AliasPath("report", "attention"))
    provider: ComparedProviderReply | None = Field(validation_alias=AliasPath("report", "provider"))
    provider_problem: str | None = Field(
        validation_alias=AliasPath("report", "provider_problem"),
        description="The reason why the provider was not compared",
    )
    guesses: CorrectedGuessesReply | None = Field(
        validation_alias=AliasPath("report", "guesses"),
        description="Charges by policy that this run corrected; null where it corrected none",
    )


class ReconciliationPageReply(Page):
    """Reconciliations, newest first."""

    data: list[ReconciliationReply]


@router.post("", status_code=201, summary="Reconcile now")
async def reconcile(
    actor: FromAdministrator,
    reconciler: FromReconciler,
    audit: FromAudit,
    new_baseline: Annotated[
        bool,
        Query(description="Accept the provider's total as it is now; compare only later changes"),
    ] = False,
) -> ReconciliationReply:
    """Compare all books now and store the report; 409 while another reconciliation runs."""
    reconciled = await reconciler.reconcile(new_baseline)
    detail = {"new_baseline": new_baseline}
    await audit.add(
        actor, AuditEvent("reconciliation.run", f"reconciliation:{reconciled.id}", None, detail)
    )
    return ReconciliationReply.model_validate(reconciled)


@router.get("", summary="List reconciliations")
async def list_reconciliations(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, reconciler: FromReconciler
) -> ReconciliationPageReply:
    """List past reports, newest first, including those of the periodic task."""
    page, cursor = await cursors.page(
        "reconciliations", query, reconciler.store.list_page, lambda last: (last.id,), int
    )
    return ReconciliationPageReply.of(page, cursor)
