"""Automatic top-ups: opt-in, by a saved card, within a monthly ceiling."""

from fastapi import APIRouter
from pydantic import Field

from meter.api.authentication import FromBuyer, FromReader, WithKey
from meter.api.billing.replies import FromPayments
from meter.api.fields import Body, Budget, Payable, Reply, Usd
from meter.api.services import FromAutoTopUps, FromPurchases
from meter.audit.events import Actor
from meter.money import parse_usd
from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.purchase import AmountOutOfBounds
from meter.payments.purchase_store import PurchaseStore

router = APIRouter(prefix="/api/v1/billing/auto-top-up", tags=["Billing"], dependencies=WithKey)


class AutoTopUpBody(Body):
    """The threshold below which the saved card is charged, the amount, and the ceiling."""

    threshold: Budget
    amount: Payable
    monthly_ceiling: Payable


class AutoTopUpReply(Reply):
    """The automatic top-ups of an account.

    `paused_reason` says why nothing is charged until they are set again; null while they work.
    """

    threshold: Usd = Field(validation_alias="threshold_picos")
    amount: Usd = Field(validation_alias="amount_picos")
    monthly_ceiling: Usd = Field(validation_alias="ceiling_picos")
    charged_this_month: Usd = Field(
        validation_alias="spent_picos", description="Since the month began (UTC)"
    )
    paused_reason: str | None


@router.get("", summary="Get your automatic top-ups")
async def get_auto_top_up(caller: FromReader, auto_top_ups: FromAutoTopUps) -> AutoTopUpReply:
    """Return when your saved card is charged; 404 while automatic top-ups are off."""
    return AutoTopUpReply.model_validate(await auto_top_ups.get(caller.account_id))


async def switch_on(
    account_id: str,
    body: AutoTopUpBody,
    actor: Actor,
    purchases: PurchaseStore,
    auto_top_ups: AutoTopUpStore,
) -> AutoTopUpReply:
    """Switch the automatic top-ups of an account on. Raises AmountOutOfBounds."""
    amount_picos = parse_usd(body.amount)
    (await purchases.get_terms()).require_sold(amount_picos)
    ceiling_picos = parse_usd(body.monthly_ceiling)
    if ceiling_picos < amount_picos:
        raise AmountOutOfBounds(
            "monthly_ceiling must not be below amount, or nothing is ever charged"
        )
    await auto_top_ups.switch_on(
        account_id, parse_usd(body.threshold), amount_picos, ceiling_picos, actor
    )
    return AutoTopUpReply.model_validate(await auto_top_ups.get(account_id))


@router.put("", summary="Switch automatic top-ups on")
async def put_auto_top_up(
    caller: FromBuyer,
    body: AutoTopUpBody,
    payments: FromPayments,
    purchases: FromPurchases,
    auto_top_ups: FromAutoTopUps,
) -> AutoTopUpReply:
    """Have the saved card charged whenever your available credit falls below a threshold.

    A card is saved by a purchase with `save_card`. Setting them again ends a pause.
    """
    return await switch_on(caller.account_id, body, caller.actor, purchases, auto_top_ups)


@router.delete("", status_code=204, summary="Switch automatic top-ups off")
async def delete_auto_top_up(caller: FromBuyer, auto_top_ups: FromAutoTopUps) -> None:
    """Charge the saved card no more. A charge that is in flight still becomes credit."""
    await auto_top_ups.switch_off(caller.account_id, caller.actor)
