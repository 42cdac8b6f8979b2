"""Checkout sessions: one purchase on a hosted page."""

from dataclasses import dataclass, field, replace
from typing import Final

from tollkeeper.simulator.stripe.billing.invoices import Billing, InvoiceLine, Invoices
from tollkeeper.simulator.stripe.billing.subscriptions import (
    Subscriptions,
    Terms,
    read_missing_method,
    read_trial_end,
)
from tollkeeper.simulator.stripe.cards import Decline, TestCard
from tollkeeper.simulator.stripe.payments.customers import Customers
from tollkeeper.simulator.stripe.payments.payment_intents import PaymentIntents, Purpose
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods, no_address
from tollkeeper.simulator.stripe.selling.coupons import Coupons
from tollkeeper.simulator.stripe.selling.line_items import (
    Line,
    LineReader,
    apply_tax,
    share_discount,
)
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

OPEN_SECONDS = 24 * 3600
EXPIRY_MIN_SECONDS = 30 * 60
AMOUNT_MIN = 50
STATUSES: Final = ("open", "complete", "expired")
SUBMIT_TYPES: Final = ("auto", "book", "donate", "pay", "subscribe")
INTENT_TEXTS: Final = (
    *("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix"),
)


@dataclass(slots=True)
class Purchase:
    """The members of a session that it does not show."""

    intent: Json
    subscription: Terms
    lines: list[Line] = field(default_factory=list)
    needs_customer: bool = False
    has_invoice: bool = False
    intent_id: str | None = None
    invoice_id: str | None = None


@dataclass(frozen=True, slots=True)
class Buyer:
    """Details that a customer types into the page."""

    email: str | None = None
    name: str | None = None


class CheckoutSessions:
    """Makes sessions, and takes them through the customer's choices."""

    def __init__(
        self,
        world: World,
        customers: Customers,
        methods: PaymentMethods,
        intents: PaymentIntents,
        coupons: Coupons,
        lines: LineReader,
        invoices: Invoices,
        subscriptions: Subscriptions,
    ) -> None:
        self._world = world
        self._customers = customers
        self._methods = methods
        self._intents = intents
        self._coupons = coupons
        self._lines = lines
        self._invoices = invoices
        self._subscriptions = subscriptions
        self._all = world.store.collection(
            "checkout.session", "customer", "payment_intent", "subscription"
        )
        self._purchases: dict[str, Purchase] = {}
        world.includable["checkout.session", "line_items"] = self._line_list

    def operations(self) -> list[Operation]:
        one = "/v1/checkout/sessions/{session}"
        return [
            Operation("POST", "/v1/checkout/sessions", self.create),
            Operation("GET", "/v1/checkout/sessions", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("POST", one, self.update),
            Operation("POST", f"{one}/expire", self.expire),
            Operation("GET", f"{one}/line_items", self.list_lines),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        mode = given.choice("mode", ("payment", "subscription"))
        if mode is None:
            raise given.absent("mode")
        given.choice("ui_mode", ("hosted_page", "hosted"))
        makers = self._lines.read(given.children("line_items"))
        members: Json = {
            name: given.text(name)
            for name in ("cancel_url", "client_reference_id", "customer_email", "locale")
        }
        members["success_url"] = given.required("success_url")
        members["submit_type"] = given.choice("submit_type", SUBMIT_TYPES)
        members["billing_address_collection"] = given.choice(
            "billing_address_collection", ("auto", "required")
        )
        members["metadata"] = given.metadata()
        members["customer"] = customer = self._customer(given, members["customer_email"])
        creation = given.choice("customer_creation", ("always", "if_required"))
        is_guest = mode == "payment" and not customer
        members["customer_creation"] = (creation or "if_required") if is_guest else None
        members["payment_method_collection"] = given.choice(
            "payment_method_collection",
            ("always", "if_required"),
            "always" if mode == "subscription" else "if_required",
        )
        types = given.texts("payment_method_types")
        members["payment_method_types"] = types or ["card"]
        tax = given.child("automatic_tax").flag("enabled")
        allows_codes = given.flag("allow_promotion_codes")
        members["discounts"] = self._discounts(given, allows_codes)
        members["expires_at"] = self._expiry(given)
        purchase = Purchase(self._intent_data(given), self._subscription_data(given, customer))
        purchase.needs_customer = mode == "subscription" or creation == "always"
        purchase.has_invoice = given.child("invoice_creation").flag("enabled")
        if purchase.has_invoice:
            members["invoice_creation"] = _invoice_creation()
        purchase.needs_customer |= purchase.has_invoice
        given.child("customer_update").choice("address", ("auto", "never"))
        collects = given.child("tax_id_collection").flag("enabled")
        members["tax_id_collection"] = {"enabled": collects, "required": "never"}
        given.finish()
        purchase.lines = lines = [make() for make in makers]
        _require_prices(mode, lines)
        session = self._make(mode, lines[0].price["currency"], members, tax, allows_codes)
        self._purchases[session["id"]] = purchase
        self._total(session, purchase, is_address_known=False)
        if 0 < session["amount_total"] < AMOUNT_MIN:
            raise invalid(
                "The Checkout Session's total amount due must add up to at least $0.50 usd",
                code="amount_too_small",
            )
        self._world.store.add(session)
        self._world.wall.at(session["expires_at"], lambda: self._expire(session))
        return session

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self.get(call.path["session"])

    def get(self, identifier: str) -> Json:
        return self._world.store.get("checkout.session", identifier)

    def update(self, call: Call) -> Json:
        session = self.get(call.path["session"])
        metadata = call.parameters.metadata(session["metadata"])
        call.parameters.finish()
        session["metadata"] = metadata
        return session

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, intent = given.text("customer"), given.text("payment_intent")
        subscription, status = given.text("subscription"), given.choice("status", STATUSES)
        keep = by_created(given)
        return self._all.page(
            given,
            call.url,
            keep,
            customer=customer,
            payment_intent=intent,
            subscription=subscription,
            status=status,
        )

    def list_lines(self, call: Call) -> Json:
        session = self.get(call.path["session"])
        given = call.parameters
        for name in ("limit", "starting_after", "ending_before"):
            given.text(name)
        given.finish()
        return self._line_list(session)

    def expire(self, call: Call) -> Json:
        session = self.get(call.path["session"])
        call.parameters.finish()
        if session["status"] != "open":
            raise invalid(
                f'Only Checkout Sessions with a status in ["open"] can be expired. This '
                f"Checkout Session has a status of {session['status']}."
            )
        self._expire(session)
        return session

    def titles(self, session: Json) -> list[tuple[str, int, int]]:
        """Return title, quantity and subtotal of each line, for the page."""
        lines = self._purchases[session["id"]].lines
        return [(line.title, line.quantity, line.subtotal) for line in lines]

    def takes_banks(self, session: Json) -> bool:
        """Tell if a session takes debits from bank accounts, which end later."""
        is_payment = session["mode"] == "payment"
        return is_payment and "us_bank_account" in session["payment_method_types"]

    def apply_code(self, session: Json, typed: str) -> None:
        """Use the promotion code that the customer typed; raises Problem if it is not good."""
        if not session["allow_promotion_codes"]:
            raise invalid("This purchase takes no promotion codes.", "promotion_code")
        row = self._coupons.find_code(typed, session["customer"], session["amount_subtotal"])
        session["discounts"] = [{"coupon": row["promotion"]["coupon"], "promotion_code": row["id"]}]

    def pay(self, session: Json, card: TestCard, buyer: Buyer) -> Decline | None:
        """Pay with a card; return why the bank refused, None if it did not.

        The session then is `complete`, or its intent is `requires_action` until the customer
        has authenticated. Raises Problem if the session is over.
        """
        if session["status"] != "open":
            raise invalid(f"This Checkout session is {session['status']}.")
        if card.is_bank and not self.takes_banks(session):
            raise invalid("This purchase takes cards only.", "card_number")
        purchase = self._purchases[session["id"]]
        self._total(session, purchase, is_address_known=True)
        # Stripe makes a customer of a guest who pays nothing.
        purchase.needs_customer |= session["amount_total"] == 0
        self._know_buyer(session, purchase, buyer)
        if session["amount_total"] == 0:
            return self._take_nothing(session, purchase, card)
        method = self._methods.from_card(card, self._billing_details(session))
        intent = self._intent_of(session, purchase)
        page = f"{self._world.base_url}/c/pay/{session['id']}"
        return self._intents.attempt(intent, method, is_off_session=False, return_url=page)

    def _intent_of(self, session: Json, purchase: Purchase) -> Json:
        amount, tax = session["amount_total"], session["total_details"]["amount_tax"]
        intent = self.intent_of(session)
        if intent:
            self._intents.change_amount(intent, amount, tax)
            return intent
        is_subscription = session["mode"] == "subscription"
        purchase.invoice_id = new_id("in")
        members = {"payment_method_types": session["payment_method_types"], **purchase.intent}
        if is_subscription:
            members |= {"description": "Subscription creation", "setup_future_usage": "off_session"}
        has_invoice = is_subscription or purchase.has_invoice
        intent = self._intents.make(
            amount,
            session["currency"],
            session["customer"],
            members,
            Purpose(
                tax=tax,
                invoice=purchase.invoice_id if has_invoice else None,
                on_paid=lambda intent: self._paid(session, purchase, intent),
                on_processing=lambda intent: self._complete(session, "unpaid"),
                on_failed=lambda intent: self._tell_later(session, "failed"),
            ),
        )
        purchase.intent_id = intent["id"]
        if not is_subscription:
            session["payment_intent"] = intent["id"]
            self._all.reindex(session)
        return intent

    def intent_of(self, session: Json) -> Json | None:
        """Return the payment of a session, also one that the session does not show."""
        identifier = self._purchases[session["id"]].intent_id
        return self._world.store.find(identifier) if identifier else None

    def _take_nothing(self, session: Json, purchase: Purchase, card: TestCard) -> Decline | None:
        """Complete a session of nothing; a subscription keeps the card for later."""
        if session["mode"] == "subscription":
            if card.decline and card.is_declined_on_setup:
                return card.decline
            customer = self._world.store.get("customer", session["customer"])
            made = self._methods.from_card(card, self._billing_details(session))
            method = self._methods.attach(made["id"], customer)
            self._methods.mark_set_up(method)
            self._subscribe(session, purchase, method["id"], None)
        intent = self.intent_of(session)
        if intent:
            # An attempt before a promotion code took all off.
            self._intents.close(intent, "automatic")
            purchase.intent_id = session["payment_intent"] = None
        self._complete(session, "no_payment_required")
        return None

    def _paid(self, session: Json, purchase: Purchase, intent: Json) -> None:
        if session["mode"] == "subscription":
            self._subscribe(session, purchase, intent["payment_method"], intent)
        elif purchase.has_invoice:
            self._invoice(session, purchase, intent)
        if session["status"] == "complete":
            session["payment_status"] = "paid"
            self._tell_later(session, "succeeded")
        else:
            self._complete(session, "paid")

    def _tell_later(self, session: Json, end: str) -> None:
        """Tell the end of a payment that the bank took its time for."""
        self._world.events.emit(f"checkout.session.async_payment_{end}", session)

    def _subscribe(
        self, session: Json, purchase: Purchase, method: str, intent: Json | None
    ) -> None:
        customer = self._world.store.get("customer", session["customer"])
        terms = replace(
            purchase.subscription,
            customer=customer,
            items=[(line.price, line.quantity) for line in purchase.lines],
            method=method,
            discounts=session["discounts"],
            has_tax=session["automatic_tax"]["enabled"],
        )
        identifier = purchase.invoice_id or new_id("in")
        subscription = self._subscriptions.start_paid(terms, identifier, intent)
        session.update(subscription=subscription["id"], invoice=identifier)
        self._all.reindex(session)

    def _invoice(self, session: Json, purchase: Purchase, intent: Json) -> None:
        customer = self._world.store.get("customer", session["customer"])
        now = self._world.wall.now()
        lines = [
            InvoiceLine(
                subtotal=line.subtotal,
                is_tax_inclusive=line.is_tax_inclusive,
                title=line.title,
                period=(now, now),
                parent=None,
                price=line.price,
                quantity=line.quantity,
            )
            for line in purchase.lines
        ]
        billing = Billing(
            customer=customer,
            reason="manual",
            currency=session["currency"],
            discounts=[self._coupons.discount_of(one)["id"] for one in session["discounts"]],
            has_tax=session["automatic_tax"]["enabled"],
            identifier=purchase.invoice_id,
            intent=intent,
        )
        invoice = self._invoices.make(lines, billing)
        self._invoices.finalize(invoice)
        session["invoice"] = invoice["id"]

    def _know_buyer(self, session: Json, purchase: Purchase, buyer: Buyer) -> None:
        needs_customer = purchase.needs_customer or purchase.intent["setup_future_usage"]
        email = session["customer_email"] or buyer.email
        if session["customer"]:
            customer = self._world.store.get("customer", session["customer"])
            email = customer["email"] or email
        elif needs_customer:
            customer = self._customers.make({"email": email, "name": buyer.name})
            session["customer"] = customer["id"]
            self._all.reindex(session)
        session["customer_details"] = {
            "address": {**no_address(), "country": "US", "postal_code": "10001"},
            "business_name": None,
            "email": email,
            "individual_name": None,
            "name": buyer.name,
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        }

    def _complete(self, session: Json, payment_status: str) -> None:
        if session["mode"] == "payment":
            for discount in session["discounts"]:
                self._coupons.redeem(discount)
        session.update(status="complete", payment_status=payment_status, url=None)
        self._world.events.emit("checkout.session.completed", session)

    def _expire(self, session: Json) -> None:
        if session["status"] != "open":
            return
        session.update(status="expired", url=None)
        intent = self.intent_of(session)
        if intent:
            self._intents.close(intent, "automatic")
        self._world.events.emit("checkout.session.expired", session)

    def _total(self, session: Json, purchase: Purchase, *, is_address_known: bool) -> None:
        """Work out the sums; tax is known only once the customer's address is."""
        lines = purchase.lines
        if purchase.subscription.trial_end:
            for line in lines:
                line.subtotal = 0
        subtotal = sum(line.subtotal for line in lines)
        off = sum(
            self._coupons.amount_off(discount["coupon"], subtotal)
            for discount in session["discounts"]
        )
        share_discount(lines, min(off, subtotal))
        if session["automatic_tax"]["enabled"] and is_address_known:
            apply_tax(lines, self._world.settings.tax_percent)
            session["automatic_tax"]["status"] = "complete"
        session["amount_subtotal"] = subtotal
        session["amount_total"] = sum(line.total for line in lines)
        session["total_details"] = {
            "amount_discount": sum(line.discount for line in lines),
            "amount_shipping": 0,
            "amount_tax": sum(line.tax for line in lines),
        }

    def _customer(self, given: Parameters, email: str | None) -> str | None:
        customer = given.text("customer")
        if customer and email:
            raise bad_parameter(
                "You may only specify one of these parameters: customer, customer_email.",
                "customer",
            )
        if customer:
            self._world.store.get("customer", customer, "customer")
            if given.has("customer_creation"):
                raise bad_parameter(
                    "You may only specify one of these parameters: customer, customer_creation.",
                    "customer_creation",
                )
        return customer

    def _discounts(self, given: Parameters, allows_codes: bool) -> list[Json]:
        discounts: list[Json] = []
        for one in given.children("discounts"):
            coupon, code = one.text("coupon"), one.text("promotion_code")
            if bool(coupon) == bool(code):
                raise bad_parameter(
                    "You must specify exactly one of coupon and promotion_code.", "discounts"
                )
            if code:
                row = self._world.store.get("promotion_code", code, one.name_of("promotion_code"))
                self._coupons.require_code(row, given.text("customer"), 1 << 40)
                coupon = row["promotion"]["coupon"]
            self._coupons.require_coupon(coupon or "")
            discounts.append({"coupon": coupon, "promotion_code": code})
        if len(discounts) > 1:
            raise bad_parameter("At most one discount can be given.", "discounts")
        if discounts and allows_codes:
            raise bad_parameter(
                "You may only specify one of these parameters: allow_promotion_codes, discounts.",
                "allow_promotion_codes",
            )
        return discounts

    def _expiry(self, given: Parameters) -> int:
        now = self._world.wall.now()
        # A client computes the bounds on its own clock, so a minute is let pass.
        least, most = now + EXPIRY_MIN_SECONDS - 60, now + OPEN_SECONDS + 60
        return given.integer("expires_at", least, most) or now + OPEN_SECONDS

    def _intent_data(self, given: Parameters) -> Json:
        data = given.child("payment_intent_data")
        usage = data.choice("setup_future_usage", ("off_session", "on_session"))
        capture = data.choice("capture_method", ("automatic", "automatic_async"))
        texts = {name: data.text(name) for name in INTENT_TEXTS}
        return {
            "metadata": data.metadata(),
            "setup_future_usage": usage,
            "capture_method": capture or "automatic_async",
            **texts,
        }

    def _subscription_data(self, given: Parameters, customer: str | None) -> Terms:
        data = given.child("subscription_data")
        owner = self._world.store.get("customer", customer) if customer else None
        return Terms(
            customer={},
            items=(),
            metadata=data.metadata(),
            description=data.text("description"),
            trial_end=read_trial_end(data, self._world.timeline_of(owner).now()),
            missing_method=read_missing_method(data),
        )

    def _make(
        self, mode: str, currency: str, members: Json, has_tax: bool, allows_codes: bool
    ) -> Json:
        identifier = new_id("cs_test", 58)
        return {
            "id": identifier,
            "object": "checkout.session",
            "adaptive_pricing": None,
            "after_expiration": None,
            "allow_promotion_codes": allows_codes or None,
            "automatic_tax": {
                "enabled": has_tax,
                "liability": {"type": "self"} if has_tax else None,
                "provider": "stripe" if has_tax else None,
                "status": "requires_location_inputs" if has_tax else None,
            },
            "client_secret": None,
            "collected_information": None,
            "consent": None,
            "consent_collection": None,
            "created": self._world.wall.now(),
            "currency": currency,
            "currency_conversion": None,
            "custom_fields": [],
            "custom_text": dict.fromkeys(
                ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
            ),
            "customer_account": None,
            "customer_details": None,
            "integration_identifier": None,
            "invoice": None,
            "invoice_creation": _invoice_creation(is_enabled=False) if mode == "payment" else None,
            "livemode": False,
            "managed_payments": None,
            "mode": mode,
            "optional_items": None,
            "origin_context": None,
            "payment_intent": None,
            "payment_link": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_status": "unpaid",
            "permissions": None,
            "phone_number_collection": {"enabled": False},
            "recovered_from": None,
            "saved_payment_method_options": None,
            "setup_intent": None,
            "shipping_address_collection": None,
            "shipping_cost": None,
            "shipping_options": [],
            "status": "open",
            "subscription": None,
            "ui_mode": "hosted_page",
            "url": f"{self._world.base_url}/c/pay/{identifier}",
            "wallet_options": None,
            **members,
        }

    def _billing_details(self, session: Json) -> Json:
        details = session["customer_details"]
        texts = {name: details[name] for name in ("email", "name", "phone")}
        return {"address": details["address"], "tax_id": None, **texts}

    def _line_list(self, session: Json) -> Json:
        lines = self._purchases[session["id"]].lines
        return {
            "object": "list",
            "url": f"/v1/checkout/sessions/{session['id']}/line_items",
            "has_more": False,
            "data": [line.to_json() for line in lines],
        }


def _require_prices(mode: str, lines: list[Line]) -> None:
    """Raises Problem unless the prices are such that the mode can sell them."""
    recurring = [line.price["recurring"] for line in lines]
    if mode == "payment" and any(recurring):
        raise invalid(
            "You specified `payment` mode but passed a recurring price. Either switch to "
            "`subscription` mode or use only one-time prices.",
            "line_items",
        )
    if mode == "subscription" and not all(recurring):
        raise invalid(
            "You must provide recurring prices only in `subscription` mode (Stripe also takes "
            "one-time prices beside them; the simulator does not).",
            "line_items",
        )


def _invoice_creation(*, is_enabled: bool = True) -> Json:
    return {
        "enabled": is_enabled,
        "invoice_data": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": None,
            "metadata": {},
            "rendering_options": None,
        },
    }
