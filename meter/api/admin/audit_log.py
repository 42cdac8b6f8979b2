"""The audit log: the actions of administrators and users. Lines are added and never changed.

A line is written in the transaction of the action that it records.
"""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromReader, WithKey
from meter.api.fields import Instant, Page, PageQuery, PlainText, Reply
from meter.api.services import FromAudit, FromCursors
from meter.audit.audit_store import AuditFilter

router = APIRouter(tags=["Audit log"])


class AuditLineReply(Reply):
    """One action. `detail` has the old and new values of what changed, never a secret."""

    id: int
    at: Instant
    actor: str = Field(examples=["operator:operator", "key:k3vtq2m6zwxa4b7c"])
    action: str = Field(examples=["key.created", "user.suspended"])
    subject: str = Field(examples=["key:k3vtq2m6zwxa4b7c"])
    user_id: str | None = Field(validation_alias="account_id")
    detail: dict[str, Any]


class AuditPageReply(Page):
    """Lines of the audit log, newest first."""

    data: list[AuditLineReply]


class OwnAuditQuery(PageQuery):
    """The lines of the caller's account to list."""

    action: Annotated[
        PlainText | None,
        Query(max_length=64, description="Only actions that begin so", examples=["key."]),
    ] = None


class AuditQuery(OwnAuditQuery):
    """The lines to list."""

    user: Annotated[
        PlainText | None, Query(max_length=128, description="Only lines about this user")
    ] = None
    actor: Annotated[
        PlainText | None, Query(max_length=200, description="Only lines of this actor")
    ] = None


@router.get(
    "/api/v1/admin/audit-log", summary="List the audit log", dependencies=AdministratorsOnly
)
async def list_audit_log(
    query: Annotated[AuditQuery, Query()], cursors: FromCursors, audit: FromAudit
) -> AuditPageReply:
    """List the actions of administrators and users, newest first."""
    scope = f"audit:{query.user}:{query.action}:{query.actor}"
    fetch = partial(audit.list_page, AuditFilter(query.user, query.action, query.actor))
    page, cursor = await cursors.page(scope, query, fetch, lambda last: (last.id,), int)
    return AuditPageReply.of(page, cursor)


@router.get("/api/v1/audit-log", summary="List your account's audit log", dependencies=WithKey)
async def list_own_audit_log(
    caller: FromReader,
    query: Annotated[OwnAuditQuery, Query()],
    cursors: FromCursors,
    audit: FromAudit,
) -> AuditPageReply:
    """List the changes of your account, its keys of all kinds, passes and credit, newest first."""
    scope = f"own-audit:{caller.account_id}:{query.action}"
    fetch = partial(audit.list_own, caller.account_id, query.action)
    page, cursor = await cursors.page(scope, query, fetch, lambda last: (last.id,), int)
    return AuditPageReply.of(page, cursor)
