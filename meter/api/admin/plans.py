"""Plans: terms that many users share, with their history."""

from dataclasses import fields, replace
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import AliasPath, BeforeValidator, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.billing.replies import FromPayments
from meter.api.fields import (
    Body,
    Budget,
    Instant,
    LimitsBody,
    LimitsReply,
    MarkupBps,
    Name,
    NotNull,
    PositiveAmount,
    RatesBody,
    Reply,
    ShortId,
    SoldFor,
    SortedScopes,
    Usd,
    UserScope,
)
from meter.api.services import FromPlans
from meter.money import format_usd, parse_usd
from meter.plans.plan import (
    DEFAULT_MAX_KEYS,
    DEFAULT_SELF_SERVICE,
    MOST_TRIAL_DAYS,
    BillingPeriod,
    Plan,
    PlanPrice,
    PlanVersion,
)
from meter.scopes import Scope

MOST_MAX_KEYS: Final = 100_000
MOST_POSITION: Final = 1_000_000

router = APIRouter(prefix="/api/v1/admin/plans", tags=["Plans"], dependencies=AdministratorsOnly)

PlanPath = Annotated[ShortId, Path(examples=["starter"])]


class Applies(StrEnum):
    """The accounts that get new terms: those that begin a period, or all."""

    NEW_PERIODS = "new_periods"
    AT_ONCE = "at_once"


AppliesQuery = Annotated[
    Applies,
    Query(
        description="`new_periods`: an account in a period of a subscription gets the new terms "
        "with its next one. `at_once`: now. Accounts without periods get them now"
    ),
]
# Below a whole: the markup of a request with an own key is below zero.
MOST_OWN_KEY_FEE_BPS: Final = 9_999
_PLAIN_TERMS: Final = frozenset(
    {"name", "markup_bps", "max_keys", "position", "is_most_popular", "own_key_fee_bps"}
)
SelfServiceScopes = Annotated[
    list[UserScope],
    Field(
        max_length=len(Scope),
        description="The scopes that users may give to their own keys",
        json_schema_extra={"uniqueItems": True},
    ),
]
MaxKeys = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_MAX_KEYS,
        description="The most keys that a user may make, not counting revoked and expired keys",
    ),
]
Position = Annotated[
    int, Field(ge=-MOST_POSITION, le=MOST_POSITION, description="Plans are shown in this order")
]


OwnKeyFeeBps = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_OWN_KEY_FEE_BPS,
        description="The part of the provider's price that requests with provider keys of the"
        " user's own are charged, in basis points",
    ),
]


class TrialBody(Body):
    """The first days of an account's first subscription, which cost nothing."""

    days: int = Field(ge=1, le=MOST_TRIAL_DAYS)
    credit: PositiveAmount | None = Field(default=None, description="Credit for these days")


class PriceBody(Body):
    """The price of a period, and the credit that it includes."""

    amount: SoldFor
    period: Annotated[BillingPeriod, Field(strict=False)]
    included_credit: Budget = "0"
    trial: TrialBody | None = None

    def to_price(self) -> PlanPrice:
        """Return the price."""
        trial = self.trial
        return PlanPrice(
            parse_usd(self.amount),
            self.period,
            parse_usd(self.included_credit),
            0 if trial is None else trial.days,
            0 if trial is None or trial.credit is None else parse_usd(trial.credit),
        )


class PlanBody(RatesBody):
    """The terms of a plan. Its limits apply to each user; null is no limit."""

    name: Name
    markup_bps: MarkupBps
    key_limits: LimitsBody = Field(
        default=LimitsBody(), description="The limits of each API key; null is no limit"
    )
    max_keys: MaxKeys = DEFAULT_MAX_KEYS
    self_service_scopes: SelfServiceScopes = Field(
        default_factory=lambda: sorted(DEFAULT_SELF_SERVICE)
    )
    price: PriceBody | None = Field(default=None, description="null: the plan is not sold")
    position: Position = 0
    is_most_popular: bool = False
    own_key_fee_bps: OwnKeyFeeBps = 0

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
            price=None if self.price is None else self.price.to_price(),
            position=self.position,
            is_most_popular=self.is_most_popular,
            own_key_fee_bps=self.own_key_fee_bps,
        )


class PlanChangesBody(RatesBody):
    """New values for some terms of a plan; members that are left out stay."""

    name: Annotated[Name | None, NotNull()] = None
    markup_bps: Annotated[MarkupBps | None, NotNull()] = None
    key_limits: Annotated[LimitsBody | None, NotNull()] = None
    max_keys: Annotated[MaxKeys | None, NotNull()] = None
    self_service_scopes: Annotated[SelfServiceScopes | None, NotNull()] = None
    price: PriceBody | None = Field(default=None, description="null: the plan is sold no more")
    position: Annotated[Position | None, NotNull()] = None
    is_most_popular: Annotated[bool | None, NotNull()] = None
    own_key_fee_bps: Annotated[OwnKeyFeeBps | None, NotNull()] = None

    def applied_to(self, before: Plan) -> Plan:
        """Return the plan with the changes."""
        changes: dict[str, Any] = {
            name: getattr(self, name) for name in self.model_fields_set if name in _PLAIN_TERMS
        }
        if self.self_service_scopes is not None:
            changes["self_service_scopes"] = frozenset(self.self_service_scopes)
        if "price" in self.model_fields_set:
            changes["price"] = None if self.price is None else self.price.to_price()
        if self.key_limits is not None:
            changes["key_rates"] = replace(before.key_rates, **self.key_limits.given_rates())
        changes["rates"] = replace(before.rates, **self.given_rates())
        return Plan(**{field.name: getattr(before, field.name) for field in fields(Plan)} | changes)


class TrialReply(Reply):
    """The first days of an account's first subscription, which cost nothing."""

    days: int
    credit: Usd


class PriceReply(Reply):
    """The price of a period, and the credit that it includes."""

    amount: Usd
    period: BillingPeriod
    included_credit: Usd
    trial: TrialReply | None


def price_reply(price: PlanPrice | None) -> dict[str, Any] | None:
    """Return a price as replies show it."""
    if price is None:
        return None
    trial = {"days": price.trial_days, "credit": format_usd(price.trial_picos)}
    return {
        "amount": format_usd(price.amount_picos),
        "period": price.period,
        "included_credit": format_usd(price.included_picos),
        "trial": trial if price.trial_days else None,
    }


class PlanReply(Reply):
    """A plan with its id, and the version of its terms."""

    id: str
    version: int = Field(description="Each change of the terms makes the next one")
    name: str
    markup_bps: int
    requests_per_minute: int | None = Field(
        validation_alias=AliasPath("rates", "requests_per_minute")
    )
    tokens_per_minute: int | None = Field(validation_alias=AliasPath("rates", "tokens_per_minute"))
    concurrent_requests: int | None = Field(
        validation_alias=AliasPath("rates", "concurrent_requests")
    )
    requests_per_day: int | None = Field(validation_alias=AliasPath("rates", "requests_per_day"))
    requests_per_month: int | None = Field(
        validation_alias=AliasPath("rates", "requests_per_month")
    )
    key_limits: LimitsReply = Field(validation_alias="key_rates")
    max_keys: int
    self_service_scopes: SortedScopes
    price: Annotated[PriceReply | None, BeforeValidator(price_reply)]
    position: int
    is_most_popular: bool
    own_key_fee_bps: int
    retired_at: Instant | None = Field(description="Since then the plan is not sold")


class PlanListReply(Reply):
    """All plans."""

    data: list[PlanReply]


class PlanVersionReply(PlanReply):
    """The terms of a plan as one change left them."""

    created_at: Instant
    created_by: str
    applies: str = Field(
        description="`current`: new periods get it. `running`: periods that began under it keep "
        "it. `past`: nobody has it any more",
        examples=["current"],
    )


class PlanHistoryReply(PlanReply):
    """A plan, and the history of its terms, newest first."""

    versions: list[PlanVersionReply]


@router.get("", summary="List plans")
async def list_plans(plans: FromPlans) -> PlanListReply:
    """List all plans, in the order in which they are shown; those without a position by id."""
    return PlanListReply.model_validate({"data": await plans.list_all()})


@router.get("/{plan_id}", summary="Get a plan with its history")
async def get_plan(plan_id: PlanPath, plans: FromPlans) -> PlanHistoryReply:
    """Return a plan and every version of its terms."""
    versions = await plans.list_versions(plan_id)
    shown = PlanReply.model_validate(versions[0])
    return PlanHistoryReply.model_construct(
        **dict(shown), versions=[_version_reply(one) for one in versions]
    )


@router.put(
    "/{plan_id}", summary="Set a plan", responses={201: {"model": PlanReply, "description": "New"}}
)
async def put_plan(
    plan_id: PlanPath,
    body: PlanBody,
    actor: FromAdministrator,
    plans: FromPlans,
    response: Response,
    applies: AppliesQuery = Applies.NEW_PERIODS,
) -> PlanReply:
    """Create a plan (201) or replace one (200); members that are left out get their defaults.

    Requests that are running keep the markup of their hold. A retired plan is offered again.
    """
    if await plans.put(actor, body.to_plan(plan_id), applies is Applies.AT_ONCE):
        response.status_code = 201
    return PlanReply.model_validate(await plans.get(plan_id))


@router.patch("/{plan_id}", summary="Change a plan")
async def change_plan(
    plan_id: PlanPath,
    body: PlanChangesBody,
    actor: FromAdministrator,
    plans: FromPlans,
    applies: AppliesQuery = Applies.NEW_PERIODS,
) -> PlanReply:
    """Change some terms of a plan, which makes a new version.

    Subscriptions keep the price under which they began; their next periods get the newest terms
    that have this price.
    """
    changed = body.applied_to(await plans.get(plan_id))
    await plans.put(actor, changed, applies is Applies.AT_ONCE)
    return PlanReply.model_validate(await plans.get(plan_id))


@router.post("/{plan_id}/retire", summary="Retire a plan")
async def retire_plan(plan_id: PlanPath, actor: FromAdministrator, plans: FromPlans) -> PlanReply:
    """Sell a plan no more; users keep it, and subscriptions go on."""
    return PlanReply.model_validate(await plans.retire(actor, plan_id))


class SyncBody(Body):
    """The permission to change what differs at Stripe."""

    may_change: bool = Field(default=True, description="false: only say what differs")


class SyncedPlanReply(Reply):
    """A plan beside Stripe; `differences` is empty where it was in step before."""

    plan: str = Field(validation_alias="plan_id")
    price_id: str | None = Field(description="The price at Stripe", examples=["price_1"])
    differences: list[str] = Field(examples=[["the price is missing"]])


class SyncReply(Reply):
    """Every plan that is sold, beside Stripe."""

    data: list[SyncedPlanReply]


@router.post("/sync", summary="Make the prices of plans at Stripe")
async def sync_plans(body: SyncBody, actor: FromAdministrator, payments: FromPayments) -> SyncReply:
    """Make product and price of each plan that is sold, and say what differed before.

    Repeating it changes nothing. A plan is sold at Stripe under the key of its price.
    """
    return SyncReply.model_validate({"data": await payments.subscribing.sync(body.may_change)})


def _version_reply(version: PlanVersion) -> PlanVersionReply:
    applies = "past"
    if version.version == version.current_version:
        applies = "current"
    elif version.version >= version.least_version:
        applies = "running"
    shown = PlanReply.model_validate(version)
    return PlanVersionReply.model_construct(
        **dict(shown),
        created_at=version.created_at,
        created_by=version.created_by,
        applies=applies,
    )
