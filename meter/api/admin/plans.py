"""Plans: terms that many users share."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import AliasPath, Field

from meter.accounts.account import Plan
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    LimitsBody,
    LimitsReply,
    MarkupBps,
    Name,
    RatesBody,
    Reply,
    ShortId,
    SortedScopes,
    UserScope,
)
from meter.api.services import FromPlans
from meter.scopes import DEFAULT_SCOPES, Scope

DEFAULT_MAX_KEYS: Final = 100
MOST_MAX_KEYS: Final = 100_000
DEFAULT_SELF_SERVICE: Final = tuple(sorted(DEFAULT_SCOPES | {Scope.KEYS_WRITE}))

router = APIRouter(prefix="/api/v1/admin/plans", tags=["Plans"], dependencies=AdministratorsOnly)


SelfServiceScopes = Annotated[
    list[UserScope],
    Field(
        max_length=len(Scope),
        description="The scopes that users may give to their own keys",
        json_schema_extra={"uniqueItems": True},
    ),
]


class PlanBody(RatesBody):
    """The terms of a plan. Its limits apply to each user; null is no limit."""

    name: Name
    markup_bps: MarkupBps
    key_limits: LimitsBody = Field(
        default=LimitsBody(), description="The limits of each API key; null is no limit"
    )
    max_keys: int = Field(
        default=DEFAULT_MAX_KEYS,
        ge=0,
        le=MOST_MAX_KEYS,
        description="The most keys that a user may make, not counting revoked and expired keys",
    )
    self_service_scopes: SelfServiceScopes = Field(
        default_factory=lambda: list(DEFAULT_SELF_SERVICE)
    )

    def to_plan(self, plan_id: str) -> Plan:
        """Return the plan."""
        return Plan(
            id=plan_id,
            name=self.name,
            markup_bps=self.markup_bps,
            rates=self.to_rates(),
            key_rates=self.key_limits.to_rates(),
            max_keys=self.max_keys,
            self_service_scopes=frozenset(self.self_service_scopes),
        )


class PlanReply(Reply):
    """A plan with its id."""

    id: str
    name: str
    markup_bps: int
    requests_per_minute: int | None = Field(
        validation_alias=AliasPath("rates", "requests_per_minute")
    )
    tokens_per_minute: int | None = Field(validation_alias=AliasPath("rates", "tokens_per_minute"))
    concurrent_requests: int | None = Field(
        validation_alias=AliasPath("rates", "concurrent_requests")
    )
    key_limits: LimitsReply = Field(validation_alias="key_rates")
    max_keys: int
    self_service_scopes: SortedScopes


class PlanListReply(Reply):
    """All plans."""

    data: list[PlanReply]


@router.get("", summary="List plans")
async def list_plans(plans: FromPlans) -> PlanListReply:
    """List all plans, in order of their ids."""
    return PlanListReply.model_validate({"data": await plans.list_all()})


@router.put(
    "/{plan_id}", summary="Set a plan", responses={201: {"model": PlanReply, "description": "New"}}
)
async def put_plan(
    plan_id: Annotated[ShortId, Path(examples=["starter"])],
    body: PlanBody,
    actor: FromAdministrator,
    plans: FromPlans,
    response: Response,
) -> PlanReply:
    """Create a plan (201) or replace one (200); members that are left out get their defaults.

    Requests that are running keep the markup of their hold.
    """
    plan = body.to_plan(plan_id)
    if await plans.put(actor, plan):
        response.status_code = 201
    return PlanReply.model_validate(plan)
