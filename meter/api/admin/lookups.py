"""Look-ups: requests whose usage is being found out."""

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Reply
from meter.api.services import FromPool
from meter.lookups import queue

router = APIRouter(prefix="/api/v1/admin/lookups", tags=["Ledger"], dependencies=AdministratorsOnly)


class LookupSummaryReply(Reply):
    """How many requests wait for the provider's record of them, and how patiently."""

    waiting: int
    without_generation_id: int = Field(description="Waiting for a report, or for the policy")
    overdue: int = Field(description="Past their deadline; a policy is about to decide them")
    decided: int = Field(description="Charged by policy meanwhile, and still asked about")
    most_attempts: int
    oldest_seconds: int | None = Field(description="null when none waits")


@router.get("", summary="Count look-ups")
async def summarise_lookups(pool: FromPool) -> LookupSummaryReply:
    """How many look-ups wait, how old the oldest is, and how often it was tried."""
    return LookupSummaryReply.model_validate(await queue.summarise_lookups(pool))
