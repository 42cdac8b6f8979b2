"""Buying credit for the account of the caller."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from meter.api.authentication import FromBuyer, FromReader, WithKey
from meter.api.billing.coupons import RedeemBody, RedeemedReply
from meter.api.billing.replies import (
    CheckoutBody,
    CheckoutReply,
    FromPayments,
    InvoicePageReply,
    PaymentPageReply,
    PortalReply,
    PurchasePageReply,
    SellingReply,
    selling_reply,
)
from meter.api.cursors import instant_and_id
from meter.api.fields import PageQuery
from meter.api.services import (
    FromCoupons,
    FromCursors,
    FromOutside,
    FromPaymentStore,
    FromPurchases,
)
from meter.money import parse_usd

router = APIRouter(prefix="/api/v1/billing", tags=["Billing"], dependencies=WithKey)


@router.get("", summary="Get the terms of buying credit")
async def get_selling(
    caller: FromReader, outside: FromOutside, purchases: FromPurchases
) -> SellingReply:
    """Return the amounts that are sold, and whether real money moves."""
    return await selling_reply(await purchases.get_terms(), outside.payments)


@router.post("/checkout", status_code=201, summary="Buy credit")
async def buy_credit(
    caller: FromBuyer, body: CheckoutBody, payments: FromPayments
) -> CheckoutReply:
    """Open a purchase, and return the page at Stripe on which it is paid.

    The credit comes when the payment has arrived: at once for cards.
    """
    amount_picos = parse_usd(body.amount)
    opened = await payments.selling.open_checkout(
        caller.account_id, amount_picos, body.save_card, caller.actor
    )
    return CheckoutReply(purchase_id=opened.purchase.id, amount=body.amount, url=opened.url)


@router.post("/portal", status_code=201, summary="Open your pages at Stripe")
async def open_portal(caller: FromBuyer, payments: FromPayments) -> PortalReply:
    """Return the address of the page where you find your cards and invoices."""
    return PortalReply(url=await payments.selling.open_portal(caller.account_id))


@router.get("/invoices", summary="List your invoices")
async def list_own_invoices(
    caller: FromReader,
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    payments: FromPayments,
) -> InvoicePageReply:
    """List your invoices as Stripe has them, newest first. Receipts are with your payments."""
    page, cursor = await cursors.page(
        f"invoices:{caller.account_id}",
        query,
        partial(payments.selling.list_invoices, caller.account_id),
        lambda last: (last.id,),
        str,
    )
    return InvoicePageReply.of(page, cursor)


@router.get("/purchases", summary="List your purchases")
async def list_own_purchases(
    caller: FromReader,
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    purchases: FromPurchases,
) -> PurchasePageReply:
    """List what you wanted to buy, newest first, with what became of it."""
    page, cursor = await cursors.page(
        f"purchases:{caller.account_id}",
        query,
        partial(purchases.list_page, caller.account_id),
        lambda last: (last.created_at.isoformat(), str(last.id)),
        instant_and_id,
    )
    return PurchasePageReply.of(page, cursor)


@router.get("/payments", summary="List your payments")
async def list_own_payments(
    caller: FromReader,
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    payments: FromPaymentStore,
) -> PaymentPageReply:
    """List the payments that became credit, newest first."""
    page, cursor = await cursors.page(
        f"payments:{caller.account_id}",
        query,
        partial(payments.list_page, caller.account_id),
        lambda last: (last.seq,),
        int,
    )
    return PaymentPageReply.of(page, cursor)


@router.post("/coupons", status_code=201, summary="Redeem a coupon")
async def redeem_coupon(caller: FromBuyer, body: RedeemBody, coupons: FromCoupons) -> RedeemedReply:
    """Add the credit of a code to your account, once. Ten codes may be tried in an hour."""
    posted = await coupons.redeem(caller.account_id, body.code, caller.actor)
    return RedeemedReply.model_validate(posted)
