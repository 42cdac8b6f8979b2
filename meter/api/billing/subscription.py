"""Subscribing to plans: for accounts, and for administrators who act for them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.authentication import (
    AdministratorsOnly,
    FromAdministrator,
    FromBuyer,
    FromReader,
    WithKey,
)
from meter.api.billing.replies import CheckoutReply, FromPayments
from meter.api.cursors import instant_and_id
from meter.api.fields import Body, Instant, Page, PageQuery, PlanId, Reply, UserId
from meter.api.services import FromCursors, FromSubscriptions

router = APIRouter(tags=["Billing"])
OWN = "/api/v1/billing/subscription"


class PlanChoiceBody(Body):
    """The plan to subscribe to."""

    plan: PlanId


class SubscriptionReply(Reply):
    """A subscription. Its terms are those of the newest invoice that was paid."""

    id: str = Field(examples=["sub_1"])
    user_id: str = Field(validation_alias="account_id")
    status: str = Field(description="As Stripe has it", examples=["active"])
    plan: str | None = Field(validation_alias="plan_id", description="null before it is paid")
    plan_version: int | None
    period_start: Instant
    period_end: Instant
    paid_until: Instant | None
    cancels_at: Instant | None
    ended_at: Instant | None
    is_paused: bool = Field(description="Nothing is charged from the next period on")
    is_applied: bool = Field(
        validation_alias="has_terms", description="Whether the user has the terms of the plan now"
    )


class SubscriptionPageReply(Page):
    """Subscriptions, newest first."""

    data: list[SubscriptionReply]


@router.get(OWN, summary="Get your subscription", dependencies=WithKey)
async def get_subscription(caller: FromReader, payments: FromPayments) -> SubscriptionReply:
    """Return your subscription; 404 while you have none."""
    return SubscriptionReply.model_validate(await payments.subscribing.get(caller.account_id))


@router.post(OWN, status_code=201, summary="Subscribe to a plan", dependencies=WithKey)
async def subscribe(
    caller: FromBuyer, body: PlanChoiceBody, payments: FromPayments
) -> CheckoutReply:
    """Open the page at Stripe on which a subscription to a plan begins."""
    opened = await payments.subscribing.open_checkout(caller.account_id, body.plan, caller.actor)
    return CheckoutReply.model_validate(
        {
            "purchase_id": opened.purchase.id,
            "amount": opened.purchase.amount_picos,
            "url": opened.url,
        }
    )


@router.put(OWN, summary="Change the plan of your subscription", dependencies=WithKey)
async def change_subscription(
    caller: FromBuyer, body: PlanChoiceBody, payments: FromPayments
) -> SubscriptionReply:
    """Change to another plan: a dearer one now, for the rest of the period; a cheaper one next."""
    changed = await payments.subscribing.change_plan(caller.account_id, body.plan, caller.actor)
    return SubscriptionReply.model_validate(changed)


@router.post(f"{OWN}/cancel", summary="Cancel your subscription", dependencies=WithKey)
async def cancel_subscription(caller: FromBuyer, payments: FromPayments) -> SubscriptionReply:
    """Have your subscription end with the period that is paid."""
    changed = await payments.subscribing.set_cancels(caller.account_id, True, caller.actor)
    return SubscriptionReply.model_validate(changed)


@router.post(f"{OWN}/resume", summary="Take your cancellation back", dependencies=WithKey)
async def resume_subscription(caller: FromBuyer, payments: FromPayments) -> SubscriptionReply:
    """Have your subscription go on after its period."""
    changed = await payments.subscribing.set_cancels(caller.account_id, False, caller.actor)
    return SubscriptionReply.model_validate(changed)


@router.post(f"{OWN}/pause", summary="Pause your subscription", dependencies=WithKey)
async def pause_subscription(caller: FromBuyer, payments: FromPayments) -> SubscriptionReply:
    """Be charged nothing from the next period on, until you take the pause back."""
    changed = await payments.subscribing.set_paused(caller.account_id, True, caller.actor)
    return SubscriptionReply.model_validate(changed)


@router.post(f"{OWN}/unpause", summary="Take your pause back", dependencies=WithKey)
async def unpause_subscription(caller: FromBuyer, payments: FromPayments) -> SubscriptionReply:
    """Be charged again, from the next period on."""
    changed = await payments.subscribing.set_paused(caller.account_id, False, caller.actor)
    return SubscriptionReply.model_validate(changed)


@router.get(
    "/api/v1/admin/subscriptions",
    summary="List subscriptions",
    dependencies=AdministratorsOnly,
    tags=["Payments"],
)
async def list_subscriptions(
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    subscriptions: FromSubscriptions,
) -> SubscriptionPageReply:
    """List the subscriptions of all users, newest first, ended ones too."""
    page, cursor = await cursors.page(
        "subscriptions",
        query,
        lambda before, limit: subscriptions.list_page(None, before, limit),
        lambda last: (last.created_at.isoformat(), last.id),
        instant_and_id,
    )
    return SubscriptionPageReply.of(page, cursor)


@router.post(
    "/api/v1/admin/users/{user_id}/subscription/cancel",
    summary="Cancel a user's subscription",
    dependencies=AdministratorsOnly,
    tags=["Payments"],
)
async def cancel_subscription_of(
    user_id: UserId, actor: FromAdministrator, payments: FromPayments
) -> SubscriptionReply:
    """Have the subscription of a user end with the period that is paid."""
    changed = await payments.subscribing.set_cancels(user_id, True, actor)
    return SubscriptionReply.model_validate(changed)


@router.post(
    "/api/v1/admin/users/{user_id}/subscription/pause",
    summary="Pause a user's subscription",
    dependencies=AdministratorsOnly,
    tags=["Payments"],
)
async def pause_subscription_of(
    user_id: UserId, actor: FromAdministrator, payments: FromPayments
) -> SubscriptionReply:
    """Charge a user nothing from the next period on, until the pause is taken back."""
    changed = await payments.subscribing.set_paused(user_id, True, actor)
    return SubscriptionReply.model_validate(changed)


@router.post(
    "/api/v1/admin/users/{user_id}/subscription/unpause",
    summary="Take the pause of a user's subscription back",
    dependencies=AdministratorsOnly,
    tags=["Payments"],
)
async def unpause_subscription_of(
    user_id: UserId, actor: FromAdministrator, payments: FromPayments
) -> SubscriptionReply:
    """Charge a user again, from the next period on."""
    changed = await payments.subscribing.set_paused(user_id, False, actor)
    return SubscriptionReply.model_validate(changed)


@router.post(
    "/api/v1/admin/users/{user_id}/subscription",
    status_code=201,
    summary="Subscribe a user to a plan",
    dependencies=AdministratorsOnly,
    tags=["Payments"],
)
async def subscribe_user(
    user_id: UserId, body: PlanChoiceBody, actor: FromAdministrator, payments: FromPayments
) -> CheckoutReply:
    """Open the page at Stripe on which a user's subscription to a plan begins."""
    opened = await payments.subscribing.open_checkout(user_id, body.plan, actor)
    return CheckoutReply.model_validate(
        {
            "purchase_id": opened.purchase.id,
            "amount": opened.purchase.amount_picos,
            "url": opened.url,
        }
    )
