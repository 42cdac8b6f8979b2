"""The plans that users may subscribe to."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator, Field

from meter.api.admin.plans import PriceReply, price_reply
from meter.api.authentication import FromReader, WithKey
from meter.api.fields import LimitsReply, Reply
from meter.api.services import FromPlans

router = APIRouter(prefix="/api/v1/billing", tags=["Billing"], dependencies=WithKey)


class SoldPlanReply(Reply):
    """A plan that is sold: the price and credit of a period, and the limits of an account."""

    id: str = Field(examples=["starter"])
    name: str
    price: Annotated[PriceReply, BeforeValidator(price_reply)]
    limits: LimitsReply = Field(validation_alias="rates")
    max_keys: int
    is_most_popular: bool


class SoldPlanListReply(Reply):
    """The plans that are sold, in the order in which they are shown."""

    data: list[SoldPlanReply]


@router.get("/plans", summary="List the plans that are sold")
async def list_sold_plans(caller: FromReader, plans: FromPlans) -> SoldPlanListReply:
    """List the plans that you may subscribe to."""
    sold = [plan for plan in await plans.list_all() if plan.is_sold]
    return SoldPlanListReply.model_validate({"data": sold})
