"""Plans: terms that many users share."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, Field

from meter.accounts.account import Plan
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import LimitsBody, MarkupBps, Name, RatesBody, Reply, ScopeName, ShortId
from meter.api.services import FromPlans
from meter.limits.limits import rates_to_json
from meter.scopes import ADMIN_SCOPES, DEFAULT_SCOPES, Scope

DEFAULT_MAX_KEYS: Final = 100
MOST_MAX_KEYS: Final = 100_000
DEFAULT_SELF_SERVICE: Final = tuple(sorted(DEFAULT_SCOPES | {Scope.KEYS_WRITE}))

router = APIRouter(prefix="/api/v1/admin/plans", tags=["Plans"], dependencies=AdministratorsOnly)


def _no_admin_scopes(scopes: list[Scope]) -> list[Scope]:
    if not ADMIN_SCOPES.isdisjoint(scopes):
        raise ValueError("users cannot give admin scopes to their keys")
    return sorted(set(scopes))


SelfServiceScopes = Annotated[
    list[ScopeName],
    AfterValidator(_no_admin_scopes),
    Field(max_length=len(Scope), description="What users may give to their own keys"),
]


class PlanBody(RatesBody):
    """The terms of a plan. Its own limits are of each user; null is no limit."""

    name: Name
    markup_bps: MarkupBps
    key_limits: LimitsBody = Field(
        default=LimitsBody(), description="Of each API key; null: no limit"
    )
    max_keys: int = Field(
        default=DEFAULT_MAX_KEYS,
        ge=0,
        le=MOST_MAX_KEYS,
        description="Keys that a user may have made, without those revoked and expired",
    )
    self_service_scopes: SelfServiceScopes = Field(
        default_factory=lambda: list(DEFAULT_SELF_SERVICE)
    )

    def to_plan(self, plan_id: str) -> Plan:
        """The same as the books have it."""
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
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    key_limits: LimitsBody
    max_keys: int
    self_service_scopes: list[Scope]

    @classmethod
    def from_terms(cls, plan: Plan) -> "PlanReply":
        return cls(
            id=plan.id,
            name=plan.name,
            markup_bps=plan.markup_bps,
            **rates_to_json(plan.rates),
            key_limits=LimitsBody.from_rates(plan.key_rates),
            max_keys=plan.max_keys,
            self_service_scopes=sorted(plan.self_service_scopes),
        )


class PlanListReply(Reply):
    """All plans."""

    data: list[PlanReply]


@router.get("", summary="List plans")
async def list_plans(plans: FromPlans) -> PlanListReply:
    """All plans, in order of their ids."""
    return PlanListReply(data=[PlanReply.from_terms(plan) for plan in await plans.list_all()])


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
    """Make a plan (201) or change one as a whole (200): what is left out has its default.

    Requests that run keep the markup of their hold.
    """
    plan = body.to_plan(plan_id)
    if await plans.put(actor, plan):
        response.status_code = 201
    return PlanReply.from_terms(plan)
