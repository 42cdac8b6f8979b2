"""Reconciliations: the books compared with one another and with the provider's own total."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.admin.ledger import FailureReply
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Instant, Page, PageQuery, Reply, Usd
from meter.api.services import FromAudit, FromCursors, FromReconciler
from meter.audit.events import AuditEvent
from meter.money import format_usd
from meter.reconciliation.drift import BookComparison, ProviderComparison
from meter.reconciliation.reconciliation_store import Reconciled

router = APIRouter(
    prefix="/api/v1/admin/reconciliations", tags=["Ledger"], dependencies=AdministratorsOnly
)


class ComparedBookReply(Reply):
    """Two books side by side; `drift` adds up the differences of all users without signs."""

    book: str = Field(examples=["charges", "costs", "holds", "balances", "credits"])
    expected: Usd
    found: Usd
    drift: Usd
    users_differing: int

    @classmethod
    def from_comparison(cls, one: BookComparison) -> "ComparedBookReply":
        return cls(
            book=one.book,
            expected=format_usd(one.expected_picos),
            found=format_usd(one.found_picos),
            drift=format_usd(one.drift_picos),
            users_differing=one.differing,
        )


class ComparedProviderReply(Reply):
    """The provider's total of one key against our costs.

    What the key was billed outside these books lies between `outside_least` and `outside_most`;
    `drift` is what contradicts that: above zero the provider billed more than the books explain.
    """

    provider: str
    key_version: int
    provider_total: Usd
    ledger_cost: Usd
    in_flight: Usd = Field(description="What live holds may be billed at most")
    provisional: Usd = Field(description="Charged by policy, and perhaps never billed")
    outside_least: Usd
    outside_most: Usd
    drift: Usd
    is_new_baseline: bool

    @classmethod
    def from_comparison(cls, one: ProviderComparison) -> "ComparedProviderReply":
        return cls(
            provider=one.total.provider,
            key_version=one.total.key_version,
            provider_total=format_usd(one.total.total_picos),
            ledger_cost=format_usd(one.cost.ledger_picos),
            in_flight=format_usd(one.cost.in_flight_picos),
            provisional=format_usd(one.cost.provisional_picos),
            outside_least=format_usd(one.outside.least_picos),
            outside_most=format_usd(one.outside.most_picos),
            drift=format_usd(one.drift_picos),
            is_new_baseline=one.is_new_baseline,
        )


class AttentionReply(Reply):
    """For people to look at; the first three since the reconciliation before."""

    settlement_conflicts: int
    policy_charges: int
    policy_voids: int
    unknown_holds: int
    stale_holds: int
    stuck_holds: int


class ReconciliationReply(Reply):
    """One report. `ok` means that no book contradicts another; nothing is ever repaired."""

    id: int
    at: Instant
    ok: bool
    books: list[ComparedBookReply]
    failures: list[FailureReply]
    attention: AttentionReply
    provider: ComparedProviderReply | None
    provider_problem: str | None = Field(description="Why the provider was not compared")

    @classmethod
    def from_reconciled(cls, reconciled: Reconciled) -> "ReconciliationReply":
        report = reconciled.report
        provider = report.provider
        return cls(
            id=reconciled.id,
            at=reconciled.at,
            ok=report.is_ok,
            books=[ComparedBookReply.from_comparison(one) for one in report.books],
            failures=[FailureReply.model_validate(one) for one in report.failures],
            attention=AttentionReply.model_validate(report.attention),
            provider=None if provider is None else ComparedProviderReply.from_comparison(provider),
            provider_problem=report.provider_problem,
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
        bool, Query(description="Take the provider's total as explained from here on")
    ] = False,
) -> ReconciliationReply:
    """Compare everything and keep the report; 409 while another reconciliation runs."""
    reconciled = await reconciler.reconcile(new_baseline)
    detail = {"new_baseline": new_baseline}
    await audit.add(
        actor, AuditEvent("reconciliation.run", f"reconciliation:{reconciled.id}", None, detail)
    )
    return ReconciliationReply.from_reconciled(reconciled)


@router.get("", summary="List reconciliations")
async def list_reconciliations(
    query: Annotated[PageQuery, Query()], cursors: FromCursors, reconciler: FromReconciler
) -> ReconciliationPageReply:
    """Past reports, those of the periodic task included."""
    scope = "reconciliations"
    position = cursors.open(scope, query.cursor)
    before = None if position is None else int(position[0])
    rows = await reconciler.store.list_page(before, query.limit + 1)
    page, cursor = cursors.next_page(scope, rows, query.limit, lambda last: (last.id,))
    return ReconciliationPageReply(
        data=[ReconciliationReply.from_reconciled(one) for one in page], next_cursor=cursor
    )
