"""Invoices: drafts that are finalized, paid, tried again, voided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tollkeeper.simulator.stripe.cards import AUTHENTICATION_REQUIRED, Decline
from tollkeeper.simulator.stripe.payments.payment_intents import PaymentIntents, Purpose
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.selling.coupons import Coupons
from tollkeeper.simulator.stripe.selling.line_items import Amounts, apply_tax, share_discount
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

#: A draft of a renewal is finalized after this time.
DRAFT_SECONDS = 3600
#: Distances between the attempts to collect a renewal; after the last, Stripe gives up.
RETRY_SECONDS: Final = (3 * 86_400, 5 * 86_400, 7 * 86_400)
STATUSES: Final = ("draft", "open", "paid", "uncollectible", "void")


@dataclass(slots=True, kw_only=True)
class InvoiceLine(Amounts):
    """A line of an invoice. `parent` says what it is for: a subscription item or invoice item."""

    title: str
    period: tuple[int, int]
    parent: Json | None
    price: Json | None = None
    quantity: int = 1
    subscription: str | None = None
    id: str = field(default_factory=lambda: new_id("il"))


@dataclass(slots=True, kw_only=True)
class Billing:
    """The ingredients of an invoice, beside its lines.

    `on_paid`, `on_failed` and `on_given_up` tell the subscription. `discounts` are ids of
    discounts. `intent` is a payment that was made before the invoice.
    """

    customer: Json
    reason: str
    subscription: Json | None = None
    currency: str = "usd"
    discounts: list[str] = field(default_factory=list)
    has_tax: bool = False
    identifier: str | None = None
    intent: Json | None = None
    on_paid: Callable[[], None] = lambda: None
    on_failed: Callable[[], None] = lambda: None
    on_given_up: Callable[[], None] = lambda: None


class Invoices:
    """Makes invoices for subscriptions, and collects them."""

    def __init__(
        self,
        world: World,
        methods: PaymentMethods,
        intents: PaymentIntents,
        coupons: Coupons,
    ) -> None:
        self._world = world
        self._methods = methods
        self._intents = intents
        self._coupons = coupons
        self._all = world.store.collection("invoice", "customer")
        self._payments = world.store.collection("invoice_payment", "invoice")
        self._billings: dict[str, Billing] = {}
        self._of_subscription: dict[str, set[str]] = {}
        world.includable["invoice", "payments"] = self._payments_of

    def operations(self) -> list[Operation]:
        one = "/v1/invoices/{invoice}"
        return [
            Operation("GET", "/v1/invoices", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("POST", f"{one}/finalize", self.finalize_call),
            Operation("POST", f"{one}/pay", self.pay_call),
            Operation("POST", f"{one}/void", self.void_call),
            Operation("GET", "/v1/invoice_payments", self.browse_payments),
            Operation("GET", "/v1/invoice_payments/{invoice_payment}", self.retrieve_payment),
        ]

    def make(self, lines: Sequence[InvoiceLine], billing: Billing) -> Json:
        """Make a draft and tell of it."""
        customer, subscription = billing.customer, billing.subscription
        now = self._world.timeline_of(customer).now()
        identifier = billing.identifier or new_id("in")
        taken_off = self._take_off(lines, billing)
        taxes = self._tax(lines, billing)
        subtotal = sum(line.subtotal for line in lines)
        total = sum(line.total for line in lines)
        balance = customer["balance"]
        due = max(0, total + balance)
        invoice: Json = {
            "id": identifier,
            "object": "invoice",
            "account_country": "US",
            "account_name": "Tollkeeper",
            "account_tax_ids": None,
            "amount_due": due,
            "amount_overpaid": 0,
            "amount_paid": 0,
            "amount_paid_off_stripe": 0,
            "amount_remaining": due,
            "amount_shipping": 0,
            "application": None,
            "attempt_count": 0,
            "attempted": False,
            "auto_advance": True,
            "automatic_tax": {
                "disabled_reason": None,
                "enabled": billing.has_tax,
                "liability": {"type": "self"} if billing.has_tax else None,
                "provider": "stripe" if billing.has_tax else None,
                "status": "complete" if billing.has_tax else None,
            },
            "automatically_finalizes_at": None,
            "billing_reason": billing.reason,
            "collection_method": "charge_automatically",
            "confirmation_secret": None,
            "created": now,
            "currency": billing.currency,
            "custom_fields": None,
            "customer": customer["id"],
            "customer_account": None,
            "customer_address": customer["address"],
            "customer_email": customer["email"],
            "customer_name": customer["name"],
            "customer_phone": customer["phone"],
            "customer_shipping": None,
            "customer_tax_exempt": "none",
            "customer_tax_ids": [],
            "default_payment_method": None,
            "default_source": None,
            "default_tax_rates": [],
            "description": None,
            "discounts": billing.discounts if taken_off else [],
            "due_date": None,
            "effective_at": None,
            "ending_balance": None,
            "footer": None,
            "from_invoice": None,
            "hosted_invoice_url": None,
            "invoice_pdf": None,
            "issuer": {"type": "self"},
            "last_finalization_error": None,
            "latest_revision": None,
            "lines": {
                "object": "list",
                "url": f"/v1/invoices/{identifier}/lines",
                "has_more": False,
                "data": [self._line(line, identifier, billing) for line in lines],
            },
            "livemode": False,
            "metadata": {},
            "next_payment_attempt": None,
            "number": None,
            "on_behalf_of": None,
            "parent": {
                "quote_details": None,
                "subscription_details": {
                    "metadata": dict(subscription["metadata"]),
                    "subscription": subscription["id"],
                },
                "type": "subscription_details",
            }
            if subscription
            else None,
            "payment_settings": {
                "default_mandate": None,
                "payment_method_options": None,
                "payment_method_types": None,
            },
            "period_end": now,
            "period_start": min([now, *(line.period[0] for line in lines)]),
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": None,
            "rendering": None,
            "shipping_cost": None,
            "shipping_details": None,
            "starting_balance": balance,
            "statement_descriptor": None,
            "status": "draft",
            "status_transitions": dict.fromkeys(
                ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")
            ),
            "subtotal": subtotal,
            "subtotal_excluding_tax": subtotal - sum(_inside(line) for line in lines),
            "test_clock": customer["test_clock"],
            "total": total,
            "total_discount_amounts": taken_off,
            "total_excluding_tax": total - sum(line.tax for line in lines),
            "total_pretax_credit_amounts": [],
            "total_taxes": taxes,
            "webhooks_delivered_at": None,
        }
        self._billings[identifier] = billing
        self._world.store.add(invoice)
        if subscription:
            subscription["latest_invoice"] = identifier
            self._of_subscription.setdefault(subscription["id"], set()).add(identifier)
        self._world.events.emit("invoice.created", invoice)
        return invoice

    def finalize(self, invoice: Json) -> None:
        """Open a draft. An invoice of nothing is paid at once."""
        billing = self._billings[invoice["id"]]
        customer = billing.customer
        number = customer["next_invoice_sequence"]
        customer["next_invoice_sequence"] += 1
        # What the customer's credit pays, or a negative total adds, moves with the balance.
        customer["balance"] += invoice["total"] - invoice["amount_due"]
        now = self._world.timeline_of(customer).now()
        invoice["status_transitions"]["finalized_at"] = now
        url = f"{self._world.base_url}/invoices/{invoice['id']}"
        invoice.update(
            status="open",
            automatically_finalizes_at=None,
            effective_at=now,
            ending_balance=customer["balance"],
            hosted_invoice_url=url,
            invoice_pdf=f"{url}/pdf",
            number=f"{customer['invoice_prefix']}-{number:04d}",
        )
        self._world.events.emit("invoice.finalized", invoice)
        if billing.intent:
            self._pay_with(invoice, billing.intent)
        elif invoice["amount_due"] == 0:
            self._mark_paid(invoice)

    def finalize_later(self, invoice: Json) -> None:
        """Finalize a draft after an hour, and collect it."""
        timeline = self._world.timeline_of(self._billings[invoice["id"]].customer)
        when = timeline.now() + DRAFT_SECONDS
        invoice["automatically_finalizes_at"] = when

        def go_on() -> None:
            if invoice["status"] == "draft" and invoice["auto_advance"]:
                self.finalize(invoice)
                self.collect(invoice)

        timeline.at(when, go_on)

    def collect(
        self, invoice: Json, *, is_off_session: bool = True, method: Json | None = None
    ) -> Decline | None:
        """Try to take what an open invoice asks; return why the bank refused, None if it did not.

        After a refusal of a renewal, more attempts follow.
        """
        if invoice["status"] != "open":
            return None
        billing = self._billings[invoice["id"]]
        method = method or self.method_of(billing.customer, billing.subscription)
        decline = None
        invoice["attempted"] = True
        invoice["attempt_count"] += 1
        if method:
            intent = self._intent_of(invoice, billing)
            decline = self._intents.attempt(intent, method, is_off_session=is_off_session)
            if decline is None:
                return None
        self._failed(invoice, billing, decline)
        return decline

    def method_of(self, customer: Json, subscription: Json | None) -> Json | None:
        """Return the payment method of a subscription, or else its customer's default."""
        store = self._world.store
        wanted = subscription and subscription["default_payment_method"]
        wanted = wanted or customer["invoice_settings"]["default_payment_method"]
        method = store.find(wanted) if wanted else None
        return method if method and method["customer"] else None

    def void(self, invoice: Json, status: str = "void") -> None:
        """End an invoice that is not paid: void, or uncollectible."""
        word = "voided_at" if status == "void" else "marked_uncollectible_at"
        now = self._world.timeline_of(self._billings[invoice["id"]].customer).now()
        invoice["status_transitions"][word] = now
        invoice.update(status=status, next_payment_attempt=None, auto_advance=False)
        kind = "voided" if status == "void" else "marked_uncollectible"
        self._world.events.emit(f"invoice.{kind}", invoice)

    def open_of(self, subscription: str) -> list[Json]:
        """Return the drafts and open invoices of a subscription."""
        ids = self._of_subscription.get(subscription, set())
        invoices = [self._world.store.get("invoice", identifier) for identifier in sorted(ids)]
        return [one for one in invoices if one["status"] in ("draft", "open")]

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self.get(call.path["invoice"])

    def get(self, identifier: str) -> Json:
        return self._world.store.get("invoice", identifier)

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, subscription = given.text("customer"), given.text("subscription")
        status = given.choice("status", STATUSES)
        created = by_created(given)
        ids = self._of_subscription.get(subscription or "", set())

        def keep(row: Json) -> bool:
            return (subscription is None or row["id"] in ids) and created(row)

        return self._all.page(given, call.url, keep, customer=customer, status=status)

    def finalize_call(self, call: Call) -> Json:
        invoice = self.get(call.path["invoice"])
        call.parameters.flag("auto_advance")
        call.parameters.finish()
        if invoice["status"] != "draft":
            raise invalid(
                "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
                code="invoice_not_editable",
            )
        self.finalize(invoice)
        return invoice

    def pay_call(self, call: Call) -> Json:
        invoice = self.get(call.path["invoice"])
        given = call.parameters
        wanted = given.text("payment_method")
        is_off_session = given.flag("off_session", True)
        given.finish()
        if invoice["status"] == "draft":
            self.finalize(invoice)
        if invoice["status"] != "open":
            raise invalid(f"Invoice is already {invoice['status']}.", code="invoice_already_paid")
        billing = self._billings[invoice["id"]]
        method = self._methods.attach(wanted, billing.customer) if wanted else None
        if not method and not self.method_of(billing.customer, billing.subscription):
            raise invalid(
                "There is no `default_payment_method` set on this Customer or Invoice. Please "
                "provide one to pay.",
                code="resource_missing",
            )
        decline = self.collect(invoice, is_off_session=is_off_session, method=method)
        if decline:
            raise Problem(
                402,
                "card_error",
                decline.message,
                code=decline.code,
                decline_code=decline.decline_code,
            )
        return invoice

    def void_call(self, call: Call) -> Json:
        invoice = self.get(call.path["invoice"])
        call.parameters.finish()
        if invoice["status"] not in ("open", "uncollectible"):
            raise invalid("You can only void an open or uncollectible invoice.")
        self.void(invoice)
        return invoice

    def browse_payments(self, call: Call) -> Json:
        given = call.parameters
        invoice, keep = given.text("invoice"), by_created(given)
        payment = given.child("payment")
        payment.choice("type", ("payment_intent",))
        intent = payment.text("payment_intent")

        def fits(row: Json) -> bool:
            is_it = intent is None or bool(row["payment"]["payment_intent"] == intent)
            return is_it and keep(row)

        return self._payments.page(given, call.url, fits, invoice=invoice)

    def retrieve_payment(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("invoice_payment", call.path["invoice_payment"])

    def _intent_of(self, invoice: Json, billing: Billing) -> Json:
        for payment in self._payments.where(invoice=invoice["id"]):
            if payment["status"] == "open":
                return self._world.store.get("payment_intent", payment["payment"]["payment_intent"])
        intent = self._intents.make(
            invoice["amount_due"],
            invoice["currency"],
            invoice["customer"],
            {
                "description": _DESCRIPTIONS.get(billing.reason, "Invoice"),
                "setup_future_usage": "off_session",
                "metadata": dict(billing.subscription["metadata"]) if billing.subscription else {},
            },
            Purpose(
                tax=sum(tax["amount"] for tax in invoice["total_taxes"]),
                invoice=invoice["id"],
                on_paid=lambda intent: self._mark_paid(invoice),
            ),
        )
        self._link(invoice, intent)
        return intent

    def _link(self, invoice: Json, intent: Json) -> Json:
        payment: Json = {
            "id": new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_due"],
            "created": invoice["created"],
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
        return self._world.store.add(payment)

    def _pay_with(self, invoice: Json, intent: Json) -> None:
        """Settle an invoice with a payment that succeeded before."""
        self._link(invoice, intent)
        invoice.update(attempted=True, attempt_count=1)
        self._mark_paid(invoice)

    def _mark_paid(self, invoice: Json) -> None:
        billing = self._billings[invoice["id"]]
        now = self._world.timeline_of(billing.customer).now()
        invoice["status_transitions"]["paid_at"] = now
        invoice.update(
            status="paid",
            amount_paid=invoice["amount_due"],
            amount_remaining=0,
            attempted=True,
            auto_advance=False,
            next_payment_attempt=None,
        )
        for payment in self._payments.where(invoice=invoice["id"]):
            payment.update(status="paid", amount_paid=invoice["amount_due"])
            payment["status_transitions"]["paid_at"] = now
            self._world.events.emit("invoice_payment.paid", payment)
        self._world.events.emit("invoice.paid", invoice)
        self._world.events.emit("invoice.payment_succeeded", invoice)
        billing.on_paid()

    def _failed(self, invoice: Json, billing: Billing, decline: Decline | None) -> None:
        timeline = self._world.timeline_of(billing.customer)
        attempt = invoice["attempt_count"]
        is_renewal = billing.reason not in ("subscription_create", "manual")
        has_more = is_renewal and attempt <= len(RETRY_SECONDS)
        if has_more:
            when = timeline.now() + RETRY_SECONDS[attempt - 1]
            invoice["next_payment_attempt"] = when
            timeline.at(when, lambda: self._try_again(invoice, attempt))
        else:
            invoice["next_payment_attempt"] = None
        if decline is AUTHENTICATION_REQUIRED:
            self._world.events.emit("invoice.payment_action_required", invoice)
        self._world.events.emit("invoice.payment_failed", invoice)
        if is_renewal and not has_more:
            billing.on_given_up()
        else:
            billing.on_failed()

    def _try_again(self, invoice: Json, attempt: int) -> None:
        # An attempt in between, by the API or on the page, has its own successor.
        if invoice["attempt_count"] == attempt:
            self.collect(invoice)

    def _take_off(self, lines: Sequence[InvoiceLine], billing: Billing) -> list[Json]:
        """Spread the discounts over the lines; return the amounts by discount."""
        subtotal = sum(line.subtotal for line in lines if line.subtotal > 0)
        amounts: list[Json] = []
        for identifier in billing.discounts:
            discount = self._world.store.get("discount", identifier)
            off = self._coupons.amount_off(discount["source"]["coupon"], subtotal)
            if off:
                amounts.append({"amount": off, "discount": identifier})
        share_discount(lines, sum(one["amount"] for one in amounts))
        return amounts

    def _tax(self, lines: Sequence[InvoiceLine], billing: Billing) -> list[Json]:
        if not billing.has_tax:
            return []
        apply_tax(lines, self._world.settings.tax_percent)
        return [_tax_entry(line) for line in lines if line.tax]

    def _line(self, line: InvoiceLine, invoice: str, billing: Billing) -> Json:
        discounts = billing.discounts if line.discount else []
        price = line.price
        return {
            "id": line.id,
            "object": "line_item",
            "amount": line.subtotal,
            "currency": billing.currency,
            "description": line.title,
            "discount_amounts": [
                {"amount": line.discount, "discount": identifier} for identifier in discounts[:1]
            ],
            "discountable": line.subtotal > 0,
            "discounts": discounts[:1],
            "invoice": invoice,
            "livemode": False,
            "metadata": {},
            "parent": line.parent,
            "period": {"end": line.period[1], "start": line.period[0]},
            "pretax_credit_amounts": [],
            "pricing": {
                "price_details": {"price": price["id"], "product": price["product"]},
                "type": "price_details",
                "unit_amount_decimal": price["unit_amount_decimal"],
            }
            if price
            else None,
            "quantity": line.quantity,
            "quantity_decimal": str(line.quantity),
            "subscription": line.subscription,
            "subtotal": line.subtotal,
            "taxes": [_tax_entry(line)] if line.tax else [],
        }

    def _payments_of(self, invoice: Json) -> Json:
        return {
            "object": "list",
            "url": "/v1/invoice_payments",
            "has_more": False,
            "data": self._payments.where(invoice=invoice["id"])[::-1],
        }


_DESCRIPTIONS: Final = {
    "subscription_create": "Subscription creation",
    "subscription_cycle": "Subscription update",
    "subscription_update": "Subscription update",
}


def _inside(line: Amounts) -> int:
    """Return the tax that the subtotal of a line contains."""
    return line.tax if line.is_tax_inclusive else 0


def _tax_entry(line: Amounts) -> Json:
    net = line.subtotal - line.discount
    return {
        "amount": line.tax,
        "tax_behavior": "inclusive" if line.is_tax_inclusive else "exclusive",
        "tax_rate_details": {"tax_rate": "txr_simulator"},
        "taxability_reason": "standard_rated",
        "taxable_amount": net - _inside(line),
        "type": "tax_rate_details",
    }
