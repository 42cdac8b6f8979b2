"""The border to Stripe: the only module that imports its library.

Objects are asked for as they are now; what an event says about them is not read. Every request
that makes something carries an idempotency key, so that a repetition makes it once.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import stripe

from meter.payments.mode import StripeMode
from meter.payments.purchase import CURRENCY, Purchase, SellingTerms, cents_of
from meter.payments.stripe_facts import (
    BalanceMovement,
    CardDeclined,
    CheckoutPage,
    CheckoutSession,
    CustomerGone,
    DisputeFacts,
    InvoiceFacts,
    ListedEvents,
    PaymentFacts,
    PaymentState,
    RefundFacts,
    ReversalFacts,
    SessionState,
    StripeEvent,
    StripeRefused,
    StripeUnavailable,
    WebhookEndpoint,
    WebhookRefused,
)

# Moving to another version of the API is a decision, made here.
API_VERSION: Final = "2026-10-28.endive"
REQUEST_TIMEOUT_S: Final = 20.0
MAX_RETRIES: Final = 2
WEBHOOK_TOLERANCE_S: Final = 300
# A page that nobody pays closes by itself. Stripe allows 30 minutes to 24 hours.
CHECKOUT_LIFETIME: Final = timedelta(hours=2)
PAGE_ROWS: Final = 100
# The most types of events that Stripe takes in one question.
MOST_TYPES: Final = 20
# The member of Stripe's metadata that names our purchase.
PURCHASE_MEMBER: Final = "tollkeeper_purchase"
ACCOUNT_MEMBER: Final = "tollkeeper_account"
_OBJECT_GONE: Final = "resource_missing"


class StripeGateway:
    """Asks Stripe. Raises StripeUnavailable in an outage, StripeRefused for a refusal.

    An object that does not exist under our key, such as another account's, is None.
    """

    def __init__(self, mode: StripeMode) -> None:
        self._mode = mode
        self._http = stripe.AIOHTTPClient(timeout=REQUEST_TIMEOUT_S)
        self._client = stripe.StripeClient(
            mode.key.reveal(),
            stripe_version=API_VERSION,
            base_addresses={"api": mode.api_base} if mode.api_base else {},
            http_client=self._http,
            max_network_retries=MAX_RETRIES,
        )

    @property
    def client(self) -> stripe.StripeClient:
        """Return the library's client, for the questions of `subscriptions`."""
        return self._client

    @property
    def is_live(self) -> bool:
        """Return whether real money moves."""
        return self._mode.is_live

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    def read_event(self, body: bytes, signature: str | None) -> StripeEvent:
        """Return the event of a webhook, once its signature over the raw bytes is verified.

        Raises WebhookRefused for a wrong or old signature, another mode, or no event.
        """
        try:
            stripe.WebhookSignature.verify_header(
                body, signature, self._mode.webhook_secret.reveal(), WEBHOOK_TOLERANCE_S
            )
            values = json.loads(body)
            # Read from plain JSON: every event type passes here, those of later API versions too.
            event = _event(values)
        except stripe.SignatureVerificationError as error:
            raise WebhookRefused("the signature is missing, wrong or too old") from error
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise WebhookRefused("the body is not an event of Stripe") from error
        if event.is_live != self.is_live:
            raise WebhookRefused("the event is of the other mode (test or live)")
        return event

    async def create_customer(self, account_id: str, email: str) -> str:
        """Return the id of a new customer that stands for an account.

        Stripe repeats an answer of 500 for as long as it keeps a key, so each call has its own. A
        second customer does no harm: the first one that is stored is used.
        """
        with stripe_errors():
            customer = await self._client.v1.customers.create_async(
                {"email": email, "metadata": {ACCOUNT_MEMBER: account_id}},
                {"idempotency_key": f"customer-{uuid4()}"},
            )
        return customer.id

    async def create_checkout(
        self, purchase: Purchase, customer_id: str, terms: SellingTerms, return_url: str
    ) -> CheckoutPage:
        """Return the page on which a purchase is paid; the same page for the same purchase."""
        metadata = _metadata(purchase)
        intent: dict[str, Any] = {"metadata": metadata}
        if purchase.saves_card:
            intent["setup_future_usage"] = "off_session"
        price: dict[str, Any] = {
            "currency": CURRENCY,
            "unit_amount": cents_of(purchase.amount_picos),
            "product_data": {"name": "Credit"},
        }
        if terms.is_taxed:
            price["tax_behavior"] = "exclusive"
        params: dict[str, Any] = {
            "mode": "payment",
            "metadata": metadata,
            "payment_intent_data": intent,
            "line_items": [{"quantity": 1, "price_data": price}],
        }
        if terms.makes_invoices:
            params["invoice_creation"] = {"enabled": True}
        return await self.open_page("checkout", params, purchase, customer_id, terms, return_url)

    async def open_page(
        self,
        action: str,
        params: dict[str, Any],
        purchase: Purchase,
        customer_id: str,
        terms: SellingTerms,
        return_url: str,
    ) -> CheckoutPage:
        """Return the Checkout page of a purchase, which sells what `params` say.

        The same page for the same action, purchase and customer.
        """
        params = {
            **params,
            "customer": customer_id,
            "client_reference_id": str(purchase.id),
            "success_url": f"{return_url}?session_id={{CHECKOUT_SESSION_ID}}",
            "cancel_url": f"{return_url}?canceled=1",
            "expires_at": int((purchase.created_at + CHECKOUT_LIFETIME).timestamp()),
        }
        if terms.takes_promotion_codes:
            params["allow_promotion_codes"] = True
        if terms.is_taxed:
            params["automatic_tax"] = {"enabled": True}
            params["customer_update"] = {"address": "auto"}
        with stripe_errors():
            session = await self._client.v1.checkout.sessions.create_async(
                params,  # type: ignore[arg-type]
                {"idempotency_key": f"{action}-{purchase.id}-{customer_id}"},
            )
        if session.url is None:
            raise StripeRefused("Stripe made a Checkout session without a page")
        return CheckoutPage(session.id, session.url)

    async def find_session(self, session_id: str) -> CheckoutSession | None:
        """Return a Checkout session as it is now."""
        with stripe_errors():
            session = await existing(
                self._client.v1.checkout.sessions.retrieve_async(
                    session_id, {"expand": ["payment_intent.latest_charge"]}
                )
            )
        return None if session is None else _session(session)

    async def find_session_of(self, payment_id: str) -> CheckoutSession | None:
        """Return the Checkout session that made a PaymentIntent; None where another way did."""
        with stripe_errors():
            found = await self._client.v1.checkout.sessions.list_async(
                {
                    "payment_intent": payment_id,
                    "limit": 1,
                    "expand": ["data.payment_intent.latest_charge"],
                }
            )
        return _session(found.data[0]) if found.data else None

    async def find_payment(self, payment_id: str) -> PaymentFacts | None:
        """Return a PaymentIntent as it is now."""
        with stripe_errors():
            intent = await existing(
                self._client.v1.payment_intents.retrieve_async(
                    payment_id, {"expand": ["latest_charge"]}
                )
            )
        return None if intent is None else _payment(intent)

    async def find_payment_id(self, event_type: str, object_id: str) -> str | None:
        """Return the PaymentIntent that the object of an event is about."""
        v1 = self._client.v1
        found: Any
        with stripe_errors():
            if event_type.startswith("charge.dispute."):
                found = await existing(v1.disputes.retrieve_async(object_id))
            elif object_id.startswith(("re_", "pyr_")):
                found = await existing(v1.refunds.retrieve_async(object_id))
            else:
                found = await existing(v1.charges.retrieve_async(object_id))
        return None if found is None else id_of(found.payment_intent)

    async def list_reversals(self, payment_id: str) -> ReversalFacts:
        """Return all refunds and disputes of a PaymentIntent as they are now."""
        asked: Any = {"payment_intent": payment_id, "limit": PAGE_ROWS}
        with stripe_errors():
            refunds = await self._client.v1.refunds.list_async(asked)
            disputes = await self._client.v1.disputes.list_async(asked)
            return ReversalFacts(
                [
                    RefundFacts(one.id, one.amount, one.status in ("failed", "canceled"))
                    async for one in refunds.auto_paging_iter()
                ],
                [_dispute(one) async for one in disputes.auto_paging_iter()],
            )

    async def list_events(
        self, types: Sequence[str], since: datetime, until: datetime | None, most: int | None
    ) -> ListedEvents:
        """Return the events of a period, by whole seconds, without its end; 30 days at most.

        Of each 20 types, at most `most` are returned, the newest of the period.
        """
        created = {"gte": int(since.timestamp())}
        if until is not None:
            created["lt"] = int(until.timestamp())
        events: list[StripeEvent] = []
        is_whole = True
        with stripe_errors():
            for first in range(0, len(types), MOST_TYPES):
                left = math.inf if most is None else most
                after: dict[str, str] = {}
                while True:
                    # As plain JSON: the library makes objects of what each event was about.
                    reply = await self._client.raw_request_async(
                        "get",
                        "/v1/events",
                        types=list(types[first : first + MOST_TYPES]),
                        created=created,
                        limit=PAGE_ROWS,
                        **after,
                    )
                    page = [_event(one) for one in reply.data["data"]]
                    events += page
                    left -= len(page)
                    if not reply.data["has_more"] or not page:
                        break
                    if left <= 0:
                        is_whole = False
                        break
                    after = {"starting_after": page[-1].id}
        return ListedEvents(sorted(events, key=lambda one: one.happened_at), is_whole)

    async def refund(self, payment_id: str, cents: int | None, key: str) -> None:
        """Refund a part of a payment, or what is left of it (None), once for each key."""
        params: dict[str, Any] = {"payment_intent": payment_id}
        if cents is not None:
            params["amount"] = cents
        with stripe_errors():
            await self._client.v1.refunds.create_async(
                params,  # type: ignore[arg-type]
                {"idempotency_key": key},
            )

    async def keep_card(self, customer_id: str, payment_method_id: str) -> None:
        """Make a card the one that automatic top-ups charge. Repeating changes nothing."""
        params: Any = {"invoice_settings": {"default_payment_method": payment_method_id}}
        with stripe_errors():
            await self._client.v1.customers.update_async(customer_id, params)

    async def find_saved_card(self, customer_id: str) -> str | None:
        """Return the card that automatic top-ups charge; None where the customer keeps none."""
        with stripe_errors():
            customer = await existing(self._client.v1.customers.retrieve_async(customer_id))
        if customer is None or getattr(customer, "deleted", False):
            return None
        return id_of(customer.invoice_settings.default_payment_method)

    async def charge_saved_card(
        self, purchase: Purchase, customer_id: str, payment_method_id: str
    ) -> PaymentFacts | CardDeclined:
        """Charge a saved card while its holder is away, once for each purchase."""
        params: dict[str, Any] = {
            "amount": cents_of(purchase.amount_picos),
            "currency": CURRENCY,
            "customer": customer_id,
            "payment_method": payment_method_id,
            "payment_method_types": ["card"],
            "off_session": True,
            "confirm": True,
            # Without it, a bank that asks for the holder leaves a payment that nobody finishes.
            "error_on_requires_action": True,
            "metadata": _metadata(purchase),
            "expand": ["latest_charge"],
        }
        with stripe_errors():
            try:
                intent = await self._client.v1.payment_intents.create_async(
                    params,  # type: ignore[arg-type]
                    {"idempotency_key": f"auto-{purchase.id}"},
                )
            except stripe.CardError as error:
                reason = None if error.error is None else error.error.decline_code
                return CardDeclined(str(reason or error.code or "declined"))
        return _payment(intent)

    async def find_payment_of(self, purchase: Purchase, customer_id: str) -> PaymentFacts | None:
        """Return the PaymentIntent that names a purchase; None where Stripe has made none."""
        since = purchase.created_at - timedelta(hours=1)
        params: Any = {
            "customer": customer_id,
            "created": {"gte": int(since.timestamp())},
            "limit": PAGE_ROWS,
            "expand": ["data.latest_charge"],
        }
        with stripe_errors():
            found = await self._client.v1.payment_intents.list_async(params)
            async for intent in found.auto_paging_iter():
                if _purchase_id(intent.metadata) == purchase.id:
                    return _payment(intent)
        return None

    async def create_portal(self, customer_id: str, return_url: str) -> str:
        """Return the address of the page where a customer keeps cards and finds receipts."""
        with stripe_errors():
            session = await self._client.v1.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": return_url}
            )
        return session.url

    async def list_webhook_endpoints(self) -> list[WebhookEndpoint]:
        """Return the endpoints in the mode of our key; Stripe allows 16."""
        with stripe_errors():
            found = await self._client.v1.webhook_endpoints.list_async({"limit": PAGE_ROWS})
        return [
            WebhookEndpoint(one.url, one.status == "enabled", one.enabled_events)
            for one in found.data
        ]

    async def find_page(self, session_id: str) -> str | None:
        """Return the page of a Checkout session that may still be paid."""
        with stripe_errors():
            session = await existing(self._client.v1.checkout.sessions.retrieve_async(session_id))
        return None if session is None or session.status != "open" else session.url

    async def list_balance(
        self, since: datetime, until: datetime, most: int
    ) -> list[BalanceMovement]:
        """Return at most so many balance transactions of a period, newest first."""
        params: Any = {
            "created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())},
            "limit": PAGE_ROWS,
            "expand": ["data.source"],
        }
        movements: list[BalanceMovement] = []
        with stripe_errors():
            found = await self._client.v1.balance_transactions.list_async(params)
            async for one in found.auto_paging_iter():
                movements.append(_movement(one))
                if len(movements) == most:
                    break
        return movements

    async def list_invoices(
        self, customer_id: str, after: str | None, most: int
    ) -> list[InvoiceFacts]:
        """Return at most so many invoices of a customer, newest first, after one of them.

        Drafts are left out: nobody has seen them yet. Raises CustomerGone.
        """
        params: Any = {"customer": customer_id, "limit": min(most, PAGE_ROWS)}
        if after is not None:
            params["starting_after"] = after
        rows: list[InvoiceFacts] = []
        with stripe_errors():
            found = await self._client.v1.invoices.list_async(params)
            async for one in found.auto_paging_iter():
                if one.status != "draft":
                    rows.append(_invoice(one))
                if len(rows) == most:
                    break
        return rows


def _object_id(found: Any) -> str:
    """Return the id of an event's object; some, such as a balance, have none."""
    try:
        return str(found["id"])
    except KeyError:
        return ""


def _event(values: Any) -> StripeEvent:
    """Return the event of its JSON. Raises KeyError and the like where that is none."""
    return StripeEvent(
        id=str(values["id"]),
        type=str(values["type"]),
        object_id=_object_id(values["data"]["object"]),
        is_live={True: True, False: False}[values["livemode"]],
        happened_at=datetime.fromtimestamp(int(values["created"]), UTC),
    )


def _metadata(purchase: Purchase) -> dict[str, str]:
    return {PURCHASE_MEMBER: str(purchase.id), ACCOUNT_MEMBER: purchase.account_id}


async def existing(asked: Any) -> Any:
    """Return what is asked for; None where it does not exist under our key."""
    try:
        return await asked
    except stripe.InvalidRequestError as error:
        if error.code == _OBJECT_GONE or error.http_status == 404:
            return None
        raise


@contextmanager
def stripe_errors() -> Iterator[None]:
    """Translate what the library raises: a retry helps, or Stripe refuses for good."""
    try:
        yield
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise StripeUnavailable("Stripe does not accept TOLLKEEPER_STRIPE_KEY") from error
    except stripe.InvalidRequestError as error:
        if error.code == _OBJECT_GONE and error.param == "customer":
            raise CustomerGone("the customer was deleted at Stripe") from error
        raise StripeRefused(f"Stripe refused: {error.user_message or error.code}") from error
    except (stripe.IdempotencyError, stripe.CardError) as error:
        raise StripeRefused(f"Stripe refused: {error.user_message or error.code}") from error
    except stripe.StripeError as error:
        raise StripeUnavailable(f"Stripe does not answer ({type(error).__name__})") from error


def id_of(reference: Any) -> str | None:
    """Return the id of an object that may be expanded."""
    if reference is None or isinstance(reference, str):
        return reference
    return str(reference.id)


def _purchase_id(metadata: Any) -> UUID | None:
    """Return the purchase that metadata names; None where it names none of ours."""
    try:
        return UUID(metadata[PURCHASE_MEMBER])
    except (KeyError, TypeError, ValueError):
        return None


def _session(session: Any) -> CheckoutSession:
    intent = session.payment_intent
    is_expanded = intent is not None and not isinstance(intent, str)
    discount = 0 if session.total_details is None else session.total_details.amount_discount
    return CheckoutSession(
        id=session.id,
        purchase_id=_purchase_id(session.metadata),
        state=_session_state(
            session.status, session.payment_status, intent.status if is_expanded else None
        ),
        payment=_payment(intent) if is_expanded else None,
        currency=session.currency or "",
        bought_cents=(session.amount_subtotal or 0) - discount,
        subscription_id=id_of(session.subscription),
        is_live=session.livemode,
    )


def _session_state(status: str, payment_status: str, intent_status: str | None) -> SessionState:
    if status == "expired":
        return SessionState.EXPIRED
    if status != "complete":
        return SessionState.OPEN
    if payment_status == "paid":
        return SessionState.PAID
    if payment_status == "no_payment_required":
        return SessionState.FREE
    # Bank debits and the like are paid days later, or not at all.
    if intent_status in ("requires_payment_method", "canceled"):
        return SessionState.FAILED
    return SessionState.PENDING


_PAYMENT_STATES: Final = {
    "succeeded": PaymentState.SUCCEEDED,
    "requires_payment_method": PaymentState.FAILED,
    "requires_action": PaymentState.NEEDS_CUSTOMER,
    "canceled": PaymentState.CANCELED,
}


def _payment(intent: Any) -> PaymentFacts:
    charge = intent.latest_charge
    is_expanded = charge is not None and not isinstance(charge, str)
    error = intent.last_payment_error
    return PaymentFacts(
        id=intent.id,
        purchase_id=_purchase_id(intent.metadata),
        state=_PAYMENT_STATES.get(intent.status, PaymentState.PENDING),
        currency=intent.currency,
        received_cents=intent.amount_received or 0,
        paid_at=datetime.fromtimestamp(charge.created if is_expanded else intent.created, UTC),
        receipt_url=charge.receipt_url if is_expanded else None,
        customer_id=id_of(intent.customer),
        payment_method_id=id_of(intent.payment_method),
        is_live=intent.livemode,
        failure=None if error is None else (error.decline_code or error.code or error.type),
    )


def _movement(transaction: Any) -> BalanceMovement:
    source = transaction.source
    is_expanded = source is not None and not isinstance(source, str)
    sold_cents: int | None = None
    if transaction.currency == CURRENCY:
        sold_cents = transaction.amount
    elif is_expanded and getattr(source, "currency", None) == CURRENCY:
        # The balance is kept in another currency than credit is sold in.
        sold_cents = source.amount if transaction.amount > 0 else -source.amount
    return BalanceMovement(
        category=transaction.reporting_category,
        source_id=id_of(source) or "",
        payment_id=id_of(getattr(source, "payment_intent", None)) if is_expanded else None,
        purchase_id=_purchase_id(getattr(source, "metadata", None)) if is_expanded else None,
        currency=transaction.currency,
        cents=transaction.amount,
        sold_cents=sold_cents,
        fee_cents=transaction.fee,
        is_pending=is_expanded and source.object == "charge" and source.status == "pending",
        created_at=datetime.fromtimestamp(transaction.created, UTC),
        customer_id=id_of(getattr(source, "customer", None)) if is_expanded else None,
    )


def _invoice(invoice: Any) -> InvoiceFacts:
    return InvoiceFacts(
        id=invoice.id,
        number=invoice.number,
        status=invoice.status,
        currency=invoice.currency,
        total_cents=invoice.total,
        tax_cents=sum(one.amount for one in invoice.total_taxes or ()),
        paid_cents=invoice.amount_paid,
        created_at=datetime.fromtimestamp(invoice.created, UTC),
        page_url=invoice.hosted_invoice_url,
        pdf_url=invoice.invoice_pdf,
    )


def _dispute(dispute: Any) -> DisputeFacts:
    moved = [one.amount for one in dispute.balance_transactions]
    return DisputeFacts(
        dispute.id,
        withdrawn_cents=-sum(amount for amount in moved if amount < 0),
        reinstated_cents=sum(amount for amount in moved if amount > 0),
    )
