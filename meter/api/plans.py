"""Plans: terms that many users share."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import Field

from meter.accounts import Plan as PlanTerms
from meter.api.authentication import OperatorOnly
from meter.api.dependencies import FromBooks
from meter.api.fields import Body, MarkupBps, Name, Reply

MAX_REQUESTS_PER_MINUTE: Final = 1_000_000

router = APIRouter(prefix="/api/v1/admin/plans", tags=["Plans"], dependencies=OperatorOnly)


class Terms(Body):
    """The terms of a plan."""

    name: Name
    markup_bps: MarkupBps
    requests_per_minute: int | None = Field(
        default=None, ge=1, le=MAX_REQUESTS_PER_MINUTE, description="null: no limit"
    )


class Plan(Terms):
    """A plan with its id."""

    id: str


class PlanList(Reply):
    """All plans."""

    data: list[Plan]


@router.get("", summary="List plans")
async def list_plans(books: FromBooks) -> PlanList:
    """All plans, in order of their ids."""
    return PlanList(
        data=[
            Plan.model_validate(plan, from_attributes=True) for plan in await books.plans.list_all()
        ]
    )


@router.put(
    "/{plan_id}", summary="Set a plan", responses={201: {"model": Plan, "description": "New"}}
)
async def put_plan(
    plan_id: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", examples=["starter"])],
    body: Terms,
    books: FromBooks,
    response: Response,
) -> Plan:
    """Make a plan (201) or change one (200). Requests that run keep the markup of their hold."""
    terms = PlanTerms(plan_id, body.name, body.markup_bps, body.requests_per_minute)
    if await books.plans.put(terms):
        response.status_code = 201
    return Plan(id=plan_id, **body.model_dump())
