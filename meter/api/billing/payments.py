"""Selling credit, as administrators see and set it."""

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from meter.api.admin.credits import IdempotencyKey, require_idempotency_key
from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.billing.coupons import MOST_CREDIT_DAYS
from meter.api.billing.replies import (
    CheckoutBody,
    CheckoutReply,
    FromPayments,
    PaymentPageReply,
    PaymentReply,
    PurchasePageReply,
    SellingReply,
    selling_reply,
)
from meter.api.cursors import instant_and_id
from meter.api.fields import (
    AccountId,
    Body,
    Instant,
    Page,
    PageQuery,
    Payable,
    Reply,
    Usd,
    UserId,
    path_id,
)
from meter.api.services import (
    FromCursors,
    FromOutside,
    FromPaymentStore,
    FromPurchases,
    FromStripeEvents,
)
from meter.money import parse_usd
from meter.payments.event_store import EventState
from meter.payments.purchase import SellingTerms

_STRIPE_ID: Final = r"[A-Za-z0-9_]{1,255}"

router = APIRouter(prefix="/api/v1/admin", tags=["Payments"], dependencies=AdministratorsOnly)
PaymentId = Annotated[str, path_id("payment_id", _STRIPE_ID, "there is no such payment", "pi_3Q0")]
EventId = Annotated[str, path_id("event_id", _STRIPE_ID, "there is no such event", "evt_1Q0")]


class SellingBody(Body):
    """The terms under which credit is sold."""

    least: Payable
    most: Payable
    is_taxed: bool = Field(default=False, description="Have Stripe add tax to the amount")
    takes_promotion_codes: bool = Field(default=False, description="Of Stripe's own coupons")
    makes_invoices: bool = Field(
        default=False, description="Have Stripe make an invoice of each purchase"
    )
    credit_days: int | None = Field(
        default=None,
        ge=1,
        le=MOST_CREDIT_DAYS,
        description="Days after the payment for which bought credit can be used. Null: it never "
        "expires",
    )


class RefundBody(Body):
    """The part of a payment to refund; left out, all that is left."""

    amount: Payable | None = None


class ReversalReply(Reply):
    """A movement that took credit of a payment back (negative), or gave it back again."""

    cause: str = Field(examples=["re_3Q0:refund"])
    kind: str = Field(examples=["refund", "refund_failed", "dispute_withdrawn"])
    amount: Usd = Field(validation_alias="amount_picos")
    at: Instant = Field(validation_alias="recorded_at")


class PaymentDetailReply(PaymentReply):
    """A payment with all that took credit of it back."""

    reversals: list[ReversalReply]


class PurchaseQuery(PageQuery):
    """The part of the purchases to return."""

    user_id: AccountId | None = None


class PaymentQuery(PageQuery):
    """The part of the payments to return."""

    user_id: AccountId | None = None


class StripeEventQuery(PageQuery):
    """The part of Stripe's events to return."""

    state: EventState | None = None


class StripeEventReply(Reply):
    """An event of Stripe. `error` says why one waits or was parked."""

    id: str = Field(examples=["evt_1Q0"])
    type: str = Field(examples=["checkout.session.completed"])
    object_id: str = Field(examples=["cs_test_a1"])
    is_live: bool
    source: str = Field(examples=["webhook", "sweep"])
    state: EventState
    happened_at: Instant
    received_at: Instant
    attempts: int
    done_at: Instant | None
    error: str | None


class StripeEventPageReply(Page):
    """Stripe's events, newest first."""

    data: list[StripeEventReply]


@router.get("/selling", summary="Get the terms of selling credit")
async def get_selling_terms(outside: FromOutside, purchases: FromPurchases) -> SellingReply:
    """Return the amounts that are sold, and whether real money moves."""
    return await selling_reply(await purchases.get_terms(), outside.payments)


@router.put("/selling", summary="Set the terms of selling credit")
async def put_selling_terms(
    body: SellingBody, actor: FromAdministrator, outside: FromOutside, purchases: FromPurchases
) -> SellingReply:
    """Set the amounts that are sold at once. Purchases that are open stay as they are."""
    terms = SellingTerms(
        parse_usd(body.least),
        parse_usd(body.most),
        body.is_taxed,
        body.takes_promotion_codes,
        body.makes_invoices,
        body.credit_days,
    )
    await purchases.set_terms(terms, actor)
    return await selling_reply(terms, outside.payments)


@router.post("/users/{user_id}/checkout", status_code=201, summary="Open a purchase for a user")
async def open_checkout_for_user(
    user_id: UserId, body: CheckoutBody, actor: FromAdministrator, payments: FromPayments
) -> CheckoutReply:
    """Open a purchase, and return the page at Stripe to send to the user."""
    amount_picos = parse_usd(body.amount)
    opened = await payments.selling.open_checkout(user_id, amount_picos, body.save_card, actor)
    return CheckoutReply(purchase_id=opened.purchase.id, amount=body.amount, url=opened.url)


@router.get("/purchases", summary="List purchases")
async def list_purchases(
    query: Annotated[PurchaseQuery, Query()], cursors: FromCursors, purchases: FromPurchases
) -> PurchasePageReply:
    """List what users wanted to buy, newest first, with what became of it."""
    page, cursor = await cursors.page(
        f"purchases-of:{query.user_id}",
        query,
        partial(purchases.list_page, query.user_id),
        lambda last: (last.created_at.isoformat(), str(last.id)),
        instant_and_id,
    )
    return PurchasePageReply.of(page, cursor)


@router.get("/payments", summary="List payments")
async def list_payments(
    query: Annotated[PaymentQuery, Query()], cursors: FromCursors, payments: FromPaymentStore
) -> PaymentPageReply:
    """List the payments that became credit, newest first."""
    page, cursor = await cursors.page(
        f"payments-of:{query.user_id}",
        query,
        partial(payments.list_page, query.user_id),
        lambda last: (last.seq,),
        int,
    )
    return PaymentPageReply.of(page, cursor)


@router.get("/payments/{payment_id}", summary="Get a payment")
async def get_payment(payment_id: PaymentId, payments: FromPaymentStore) -> PaymentDetailReply:
    """Return a payment with the refunds and disputes that took credit of it back."""
    paid = PaymentReply.model_validate(await payments.get(payment_id))
    reversals = await payments.list_reversals(payment_id)
    return PaymentDetailReply.model_construct(
        **dict(paid), reversals=[ReversalReply.model_validate(one) for one in reversals]
    )


@router.post("/payments/{payment_id}/refunds", status_code=201, summary="Refund a payment")
async def refund_payment(
    payment_id: PaymentId,
    body: RefundBody,
    actor: FromAdministrator,
    payments: FromPayments,
    idempotency_key: IdempotencyKey = None,
) -> PaymentReply:
    """Refund a payment at Stripe, and take its credit back, once for each `Idempotency-Key`.

    The balance may go below zero by it; no request is accepted then.
    """
    key = require_idempotency_key(idempotency_key)
    amount_picos = None if body.amount is None else parse_usd(body.amount)
    refunded = await payments.selling.refund(payment_id, amount_picos, key, actor)
    return PaymentReply.model_validate(refunded)


@router.get("/stripe-events", summary="List Stripe's events")
async def list_stripe_events(
    query: Annotated[StripeEventQuery, Query()], cursors: FromCursors, events: FromStripeEvents
) -> StripeEventPageReply:
    """List the events that came by the webhook or were found by the sweep, newest first."""
    page, cursor = await cursors.page(
        f"stripe-events:{query.state}",
        query,
        partial(events.list_page, query.state),
        lambda last: (last.seq,),
        int,
    )
    return StripeEventPageReply.of(page, cursor)


@router.post("/stripe-events/{event_id}/replay", summary="Follow an event once more")
async def replay_stripe_event(
    event_id: EventId, actor: FromAdministrator, payments: FromPayments
) -> StripeEventReply:
    """Fetch the object of an event again, and post what follows. Nothing is posted twice."""
    replayed = await payments.events.replay(event_id, actor)
    payments.worker.wake()
    return StripeEventReply.model_validate(replayed)
