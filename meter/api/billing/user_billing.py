"""Billing of one user, as administrators see it and act on the user's behalf."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.billing.auto_top_up import AutoTopUpBody, AutoTopUpReply, switch_on
from meter.api.billing.coupons import RedeemBody, RedeemedReply
from meter.api.billing.replies import FromPayments, InvoicePageReply, PortalReply
from meter.api.fields import PageQuery, UserId
from meter.api.services import (
    FromAccounts,
    FromAutoTopUps,
    FromCoupons,
    FromCursors,
    FromPurchases,
)

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}", tags=["Payments"], dependencies=AdministratorsOnly
)


@router.post("/portal", status_code=201, summary="Open a user's pages at Stripe")
async def open_portal_for_user(user_id: UserId, payments: FromPayments) -> PortalReply:
    """Return the address of the user's cards and invoices at Stripe. Send it to the user only."""
    return PortalReply(url=await payments.selling.open_portal(user_id))


@router.get("/invoices", summary="List a user's invoices")
async def list_invoices_of_user(
    user_id: UserId,
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    payments: FromPayments,
) -> InvoicePageReply:
    """List invoices as Stripe has them, newest first. Receipts are with the payments."""
    page, cursor = await cursors.page(
        f"invoices-of:{user_id}",
        query,
        partial(payments.selling.list_invoices, user_id),
        lambda last: (last.id,),
        str,
    )
    return InvoicePageReply.of(page, cursor)


@router.get("/auto-top-up", summary="Get a user's automatic top-ups")
async def get_auto_top_up_of_user(
    user_id: UserId, accounts: FromAccounts, auto_top_ups: FromAutoTopUps
) -> AutoTopUpReply:
    """Return when the user's saved card is charged; 404 while automatic top-ups are off."""
    await accounts.get(user_id)
    return AutoTopUpReply.model_validate(await auto_top_ups.get(user_id))


@router.put("/auto-top-up", summary="Switch a user's automatic top-ups on")
async def put_auto_top_up_of_user(
    user_id: UserId,
    body: AutoTopUpBody,
    actor: FromAdministrator,
    accounts: FromAccounts,
    payments: FromPayments,
    purchases: FromPurchases,
    auto_top_ups: FromAutoTopUps,
) -> AutoTopUpReply:
    """Have the user's saved card charged at a threshold, as the user asked for.

    Setting them again ends a pause.
    """
    await accounts.get(user_id)
    return await switch_on(user_id, body, actor, purchases, auto_top_ups)


@router.delete("/auto-top-up", status_code=204, summary="Switch a user's automatic top-ups off")
async def delete_auto_top_up_of_user(
    user_id: UserId, actor: FromAdministrator, accounts: FromAccounts, auto_top_ups: FromAutoTopUps
) -> None:
    """Charge the user's card no more. A charge that is in flight still becomes credit."""
    await accounts.get(user_id)
    await auto_top_ups.switch_off(user_id, actor)


@router.post("/coupons", status_code=201, summary="Redeem a coupon for a user")
async def redeem_coupon_for_user(
    user_id: UserId,
    body: RedeemBody,
    actor: FromAdministrator,
    accounts: FromAccounts,
    coupons: FromCoupons,
) -> RedeemedReply:
    """Add the credit of a code to a user's account, once, as the user could."""
    await accounts.get(user_id)
    return RedeemedReply.model_validate(await coupons.redeem(user_id, body.code, actor))
