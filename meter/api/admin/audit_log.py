"""The audit log: who did what when. Lines are added with what they tell of, and never changed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromReader, WithKey
from meter.api.fields import Instant, Page, PageQuery, PlainText, Reply
from meter.api.services import FromAudit, FromCursors
from meter.audit.audit_store import AuditFilter

router = APIRouter(tags=["Audit log"])


class AuditLineReply(Reply):
    """One thing that somebody did. `detail` names what changed, never a secret."""

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
    """Which lines to list."""

    action: Annotated[
        PlainText | None,
        Query(max_length=64, description="How the action begins", examples=["key."]),
    ] = None


class AuditQuery(OwnAuditQuery):
    """Which lines to list."""

    user: Annotated[PlainText | None, Query(max_length=128, description="About this user")] = None
    actor: Annotated[
        PlainText | None, Query(max_length=200, description="By this actor, as lines name it")
    ] = None


@router.get(
    "/api/v1/admin/audit-log", summary="List the audit log", dependencies=AdministratorsOnly
)
async def list_audit_log(
    query: Annotated[AuditQuery, Query()], cursors: FromCursors, audit: FromAudit
) -> AuditPageReply:
    """Who did what, newest first."""
    scope = f"audit:{query.user}:{query.action}:{query.actor}"
    position = cursors.open(scope, query.cursor)
    before = None if position is None else int(position[0])
    wanted = AuditFilter(query.user, query.action, query.actor)
    rows = await audit.list_page(wanted, before, query.limit + 1)
    page, cursor = cursors.next_page(scope, rows, query.limit, lambda last: (last.id,))
    return AuditPageReply(
        data=[AuditLineReply.model_validate(one) for one in page], next_cursor=cursor
    )


@router.get("/api/v1/audit-log", summary="List your account's audit log", dependencies=WithKey)
async def list_own_audit_log(
    caller: FromReader,
    query: Annotated[OwnAuditQuery, Query()],
    cursors: FromCursors,
    audit: FromAudit,
) -> AuditPageReply:
    """What was done to your keys, passes and credit, newest first."""
    scope = f"own-audit:{caller.account_id}:{query.action}"
    position = cursors.open(scope, query.cursor)
    before = None if position is None else int(position[0])
    rows = await audit.list_own(caller.account_id, query.action, before, query.limit + 1)
    page, cursor = cursors.next_page(scope, rows, query.limit, lambda last: (last.id,))
    return AuditPageReply(
        data=[AuditLineReply.model_validate(one) for one in page], next_cursor=cursor
    )
