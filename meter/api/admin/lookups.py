"""Look-ups: requests whose usage is asked for at the provider."""

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import AdministratorsOnly
from meter.api.fields import Reply
from meter.api.services import FromPool
from meter.lookups import queue

router = APIRouter(prefix="/api/v1/admin/lookups", tags=["Ledger"], dependencies=AdministratorsOnly)


class LookupSummaryReply(Reply):
    """The numbers of requests that wait for the provider's record of them."""

    waiting: int
    without_generation_id: int = Field(description="Waiting for a report, or for the policy")
    overdue: int = Field(description="Past their deadline; a policy decides them next")
    decided: int = Field(description="Charged by policy, and still looked up")
    most_attempts: int
    oldest_seconds: int | None = Field(description="null when none waits")


@router.get("", summary="Count look-ups")
async def summarise_lookups(pool: FromPool) -> LookupSummaryReply:
    """Count the look-ups that wait; show the age of the oldest and the most attempts."""
    return LookupSummaryReply.model_validate(await queue.summarise_lookups(pool))
