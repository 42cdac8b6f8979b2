"""Subscriptions: the state machine over periods, trials, failures, pauses and endings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tollkeeper.simulator.stripe.billing.invoice_items import InvoiceItems
from tollkeeper.simulator.stripe.billing.invoices import Billing, InvoiceLine, Invoices
from tollkeeper.simulator.stripe.billing.periods import next_period, period_after, share_of_period
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.selling.coupons import Coupons
from tollkeeper.simulator.stripe.selling.line_items import tax_is_inclusive
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.timeline import Timeline
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

ITEMS_MAX = 20
QUANTITY_MAX = 999_999
TRIAL_DAYS_MAX = 730
TIME_MAX = 1 << 40
DAY_SECONDS = 86_400
INCOMPLETE_SECONDS = 23 * 3600
BEHAVIORS: Final = ("allow_incomplete", "default_incomplete", "error_if_incomplete")
PRORATIONS: Final = ("always_invoice", "create_prorations", "none")
ENDED: Final = ("canceled", "incomplete_expired")
STATUSES: Final = (
    *("active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due"),
    *("paused", "trialing", "unpaid"),
)
FEEDBACKS: Final = (
    *("customer_service", "low_quality", "missing_features", "other", "switched_service"),
    *("too_complex", "too_expensive", "unused"),
)


@dataclass(slots=True, kw_only=True)
class Terms:
    """The terms of a new subscription. `items` are prices with quantities."""

    customer: Json
    items: Sequence[tuple[Json, int]]
    metadata: dict[str, str]
    method: str | None = None
    trial_end: int | None = None
    discounts: Sequence[Json] = ()
    has_tax: bool = False
    missing_method: str = "create_invoice"
    description: str | None = None
    cancels_at_period_end: bool = False


class Subscriptions:
    """Makes, changes, renews and ends subscriptions."""

    def __init__(
        self,
        world: World,
        methods: PaymentMethods,
        coupons: Coupons,
        invoices: Invoices,
        items: InvoiceItems,
    ) -> None:
        self._world = world
        self._methods = methods
        self._coupons = coupons
        self._invoices = invoices
        self._pending = items
        self._all = world.store.collection("subscription", "customer")
        world.store.collection("subscription_item")
        world.includable["customer", "subscriptions"] = self._of_customer

    def operations(self) -> list[Operation]:
        one = "/v1/subscriptions/{subscription_exposed_id}"
        return [
            Operation("POST", "/v1/subscriptions", self.create),
            Operation("GET", "/v1/subscriptions", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("POST", one, self.update),
            Operation("DELETE", one, self.cancel),
            Operation("POST", "/v1/subscriptions/{subscription}/resume", self.resume),
            Operation("GET", "/v1/subscription_items", self.browse_items),
            Operation("GET", "/v1/subscription_items/{item}", self.retrieve_item),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        customer = self._world.store.get("customer", given.required("customer"), "customer")
        now = self._world.timeline_of(customer).now()
        items = [self._item(one) for one in given.children("items")]
        if not 1 <= len(items) <= ITEMS_MAX:
            raise bad_parameter(f"items must have 1 to {ITEMS_MAX} members.", "items")
        terms = Terms(
            customer=customer,
            items=items,
            metadata=given.metadata(),
            method=self._own_method(given, customer),
            trial_end=read_trial_end(given, now),
            discounts=self._discounts(given),
            has_tax=given.child("automatic_tax").flag("enabled"),
            missing_method=read_missing_method(given),
            description=given.text("description"),
            cancels_at_period_end=given.flag("cancel_at_period_end"),
        )
        behavior = given.choice("payment_behavior", BEHAVIORS, "allow_incomplete")
        given.choice("collection_method", ("charge_automatically",))
        is_off_session = given.flag("off_session")
        given.child("payment_settings").choice("save_default_payment_method", ("off",))
        given.finish()
        has_method = terms.method or customer["invoice_settings"]["default_payment_method"]
        if not (has_method or terms.trial_end or behavior == "default_incomplete"):
            raise invalid(
                "This customer has no attached payment source or default payment method. Please "
                "consider adding a default payment method.",
                code="resource_missing",
            )
        if behavior == "error_if_incomplete":
            raise bad_parameter("The simulator leaves out error_if_incomplete.", "payment_behavior")
        subscription = self.make(terms)
        invoice = self._first_invoice(subscription, terms)
        if behavior != "default_incomplete":
            self._invoices.collect(invoice, is_off_session=is_off_session)
        return subscription

    def start_paid(self, terms: Terms, invoice: str, intent: Json | None) -> Json:
        """Make a subscription whose first invoice was paid before, on the Checkout page.

        `invoice` is the id of the invoice, `intent` the payment, None if nothing was due.
        """
        subscription = self.make(terms)
        self._first_invoice(subscription, terms, invoice, intent)
        return subscription

    def make(self, terms: Terms) -> Json:
        """Make a subscription in its first period and tell of it; nothing is invoiced yet."""
        customer = terms.customer
        timeline = self._world.timeline_of(customer)
        now = timeline.now()
        identifier = new_id("sub")
        recurring = terms.items[0][0]["recurring"]
        trial_end = terms.trial_end
        end = trial_end or period_after(now, recurring, 1)
        items = [
            self._make_item(identifier, price, quantity, (now, end))
            for price, quantity in terms.items
        ]
        subscription: Json = {
            "id": identifier,
            "object": "subscription",
            "application": None,
            "application_fee_percent": None,
            "automatic_tax": {
                "disabled_reason": None,
                "enabled": terms.has_tax,
                "liability": {"type": "self"} if terms.has_tax else None,
            },
            "billing_cycle_anchor": trial_end or now,
            "billing_cycle_anchor_config": None,
            "billing_mode": {"flexible": None, "type": "classic"},
            "billing_schedules": [],
            "billing_thresholds": None,
            "cancel_at": end if terms.cancels_at_period_end else None,
            "cancel_at_period_end": terms.cancels_at_period_end,
            "canceled_at": now if terms.cancels_at_period_end else None,
            "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "collection_method": "charge_automatically",
            "created": now,
            "currency": terms.items[0][0]["currency"],
            "customer": customer["id"],
            "customer_account": None,
            "days_until_due": None,
            "default_payment_method": terms.method,
            "default_source": None,
            "default_tax_rates": [],
            "description": terms.description,
            "discounts": [
                self._coupons.discount_of(chosen, subscription=identifier)["id"]
                for chosen in terms.discounts
            ],
            "ended_at": None,
            "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
            "items": {
                "object": "list",
                "url": f"/v1/subscription_items?subscription={identifier}",
                "has_more": False,
                "data": items,
            },
            "latest_invoice": None,
            "livemode": False,
            "managed_payments": None,
            "metadata": terms.metadata,
            "next_pending_invoice_item_invoice": None,
            "on_behalf_of": None,
            "pause_collection": None,
            "payment_settings": {
                "payment_method_options": None,
                "payment_method_types": None,
                "save_default_payment_method": "off",
            },
            "pending_invoice_item_interval": None,
            "pending_setup_intent": None,
            "pending_update": None,
            "schedule": None,
            "start_date": now,
            "status": "trialing" if trial_end else "incomplete",
            "test_clock": customer["test_clock"],
            "transfer_data": None,
            "trial_end": trial_end,
            "trial_settings": {"end_behavior": {"missing_payment_method": terms.missing_method}},
            "trial_start": now if trial_end else None,
        }
        self._world.store.add(subscription)
        self._world.events.emit("customer.subscription.created", subscription)
        self._await_end(subscription, timeline)
        if trial_end:
            timeline.at(
                max(now, trial_end - 3 * DAY_SECONDS),
                lambda: self._tell_trial_end(subscription, trial_end),
            )
        return subscription

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._get(call)

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, price = given.text("customer"), given.text("price")
        status, created = given.choice("status", STATUSES), by_created(given)

        def keep(row: Json) -> bool:
            prices = [item["price"]["id"] for item in row["items"]["data"]]
            if status is None:
                fits = row["status"] != "canceled"
            elif status == "ended":
                fits = row["status"] in ENDED
            else:
                fits = status in ("all", row["status"])
            return fits and (price is None or price in prices) and created(row)

        return self._all.page(given, call.url, keep, customer=customer)

    def browse_items(self, call: Call) -> Json:
        given = call.parameters
        subscription = given.required("subscription")
        self._world.store.get("subscription", subscription, "subscription")
        items = self._world.store.of("subscription_item")
        return items.page(given, call.url, subscription=subscription)

    def retrieve_item(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("subscription_item", call.path["item"])

    def update(self, call: Call) -> Json:
        subscription = self._get(call)
        given = call.parameters
        customer = self._customer_of(subscription)
        now = self._world.timeline_of(customer).now()
        changed: Json = {"metadata": given.metadata(subscription["metadata"])}
        if given.has("description"):
            changed["description"] = given.text("description")
        if given.has("default_payment_method"):
            changed["default_payment_method"] = self._own_method(given, customer)
        if given.has("pause_collection"):
            changed["pause_collection"] = self._pause(given)
        if given.has("cancel_at"):
            changed["cancel_at"] = given.integer("cancel_at", now, TIME_MAX)
        if given.has("cancel_at_period_end"):
            changed |= self._ending(subscription, given.flag("cancel_at_period_end"), now)
        details = given.child("cancellation_details")
        if details:
            changed["cancellation_details"] = {
                **subscription["cancellation_details"],
                "comment": details.text("comment"),
                "feedback": details.choice("feedback", FEEDBACKS),
            }
        trial_now = given.text("trial_end") == "now" if given.has("trial_end") else False
        trial_end = None if trial_now else read_trial_end(given, now)
        proration = given.choice("proration_behavior", PRORATIONS, "create_prorations")
        given.choice("payment_behavior", ("allow_incomplete",))
        prices = self._new_prices(subscription, given.children("items"))
        given.finish()
        if subscription["status"] in ENDED:
            raise invalid("A canceled subscription can only update its metadata.")
        previous = _differences(subscription, changed)
        subscription.update(changed)
        if prices:
            previous["items"] = {"data": [dict(one) for one in subscription["items"]["data"]]}
            self._change_prices(subscription, prices, proration or "", now)
        if (trial_end or trial_now) and subscription["status"] == "trialing":
            previous["trial_end"] = subscription["trial_end"]
            self._move_trial(subscription, trial_end or now)
        if previous:
            self._updated(subscription, previous)
        if "cancel_at" in changed:
            self._await_end(subscription, self._world.timeline_of(customer))
        return subscription

    def cancel(self, call: Call) -> Json:
        subscription = self._get(call)
        given = call.parameters
        details = given.child("cancellation_details")
        comment, feedback = details.text("comment"), details.choice("feedback", FEEDBACKS)
        given.flag("invoice_now")
        given.flag("prorate")
        given.finish()
        if subscription["status"] in ENDED:
            raise invalid(f"No such subscription: '{subscription['id']}'", "id", "resource_missing")
        subscription["cancellation_details"] |= {"comment": comment, "feedback": feedback}
        self.end(subscription, "cancellation_requested")
        return subscription

    def resume(self, call: Call) -> Json:
        subscription = self._world.store.get("subscription", call.path["subscription"])
        given = call.parameters
        given.choice("billing_cycle_anchor", ("now", "unchanged"), "now")
        given.choice("proration_behavior", PRORATIONS)
        given.finish()
        if subscription["status"] != "paused":
            raise invalid("You can only resume a paused subscription.")
        customer = self._customer_of(subscription)
        now = self._world.timeline_of(customer).now()
        subscription["billing_cycle_anchor"] = now
        self._start_period(subscription, now)
        invoice = self._invoice(subscription, "subscription_cycle")
        self._invoices.finalize(invoice)
        self._invoices.collect(invoice)
        return subscription

    def ask_to_cancel(self, subscription: Json, *, is_wanted: bool) -> None:
        """Cancel at the end of the period, or take that back, as the portal's buttons do."""
        timeline = self._world.timeline_of(self._customer_of(subscription))
        changed = self._ending(subscription, is_wanted, timeline.now())
        previous = _differences(subscription, changed)
        subscription.update(changed)
        self._updated(subscription, previous)

    def set_method(self, subscription: Json, method: str) -> None:
        """Pay with another method from now on."""
        previous = {"default_payment_method": subscription["default_payment_method"]}
        subscription["default_payment_method"] = method
        self._updated(subscription, previous)

    def running_of(self, customer: str) -> list[Json]:
        """Return the subscriptions of a customer that have not ended."""
        return [row for row in self._all.where(customer=customer) if row["status"] not in ENDED]

    def end(self, subscription: Json, reason: str) -> None:
        """End a subscription now; what was not collected is voided."""
        now = self._world.timeline_of(self._customer_of(subscription)).now()
        subscription.update(
            status="canceled",
            ended_at=now,
            canceled_at=subscription["canceled_at"] or now,
            pause_collection=None,
        )
        subscription["cancellation_details"]["reason"] = reason
        for invoice in self._invoices.open_of(subscription["id"]):
            invoice["auto_advance"] = False
            invoice["next_payment_attempt"] = None
        self._world.events.emit("customer.subscription.deleted", subscription)

    def _get(self, call: Call) -> Json:
        return self._world.store.get("subscription", call.path["subscription_exposed_id"])

    def _customer_of(self, subscription: Json) -> Json:
        return self._world.store.get("customer", subscription["customer"])

    def _of_customer(self, customer: Json) -> Json:
        return {
            "object": "list",
            "url": f"/v1/customers/{customer['id']}/subscriptions",
            "has_more": False,
            "data": self.running_of(customer["id"])[::-1],
        }

    def _first_invoice(
        self,
        subscription: Json,
        terms: Terms,
        identifier: str | None = None,
        intent: Json | None = None,
    ) -> Json:
        for chosen in terms.discounts:
            self._coupons.redeem(chosen)
        invoice = self._invoice(
            subscription, "subscription_create", identifier=identifier, intent=intent
        )
        self._invoices.finalize(invoice)
        if subscription["status"] == "incomplete":
            timeline = self._world.timeline_of(terms.customer)
            timeline.at(
                timeline.now() + INCOMPLETE_SECONDS,
                lambda: self._expire(subscription, invoice),
            )
        return invoice

    def _invoice(
        self,
        subscription: Json,
        reason: str,
        *,
        identifier: str | None = None,
        intent: Json | None = None,
        has_periods: bool = True,
    ) -> Json:
        """Make the invoice of the period that runs, with all that waits for it."""
        customer = self._customer_of(subscription)
        invoice = identifier or new_id("in")
        lines = [self._period_line(subscription, item) for item in _items(subscription)]
        if not has_periods:
            lines = []
        waiting = self._pending.take_pending(customer["id"], subscription["id"], invoice)
        lines += [self._item_line(item) for item in waiting]
        billing = Billing(
            customer=customer,
            reason=reason,
            subscription=subscription,
            currency=subscription["currency"],
            discounts=list(subscription["discounts"]),
            has_tax=subscription["automatic_tax"]["enabled"],
            identifier=invoice,
            intent=intent,
            on_paid=lambda: self._paid(subscription),
            on_failed=lambda: self._unpaid(subscription),
            on_given_up=lambda: self._given_up(subscription),
        )
        made = self._invoices.make(lines, billing)
        self._end_discounts(subscription)
        return made

    def _end_discounts(self, subscription: Json) -> None:
        """Drop the discounts that were for one invoice, or whose months are over."""
        now = self._world.timeline_of(self._customer_of(subscription)).now()
        kept = []
        for identifier in subscription["discounts"]:
            discount = self._world.store.get("discount", identifier)
            coupon = self._world.store.get("coupon", discount["source"]["coupon"])
            months = coupon["duration_in_months"]
            monthly = {"interval": "month", "interval_count": 1}
            is_over = months and period_after(discount["start"], monthly, months) <= now
            if coupon["duration"] != "once" and not is_over:
                kept.append(identifier)
        subscription["discounts"] = kept

    def _paid(self, subscription: Json) -> None:
        if subscription["status"] in ("incomplete", "past_due", "unpaid", "paused"):
            self._set_status(subscription, "active")

    def _unpaid(self, subscription: Json) -> None:
        if subscription["status"] in ("active", "trialing", "paused"):
            self._set_status(subscription, "past_due")

    def _given_up(self, subscription: Json) -> None:
        if subscription["status"] not in ENDED:
            self.end(subscription, "payment_failed")

    def _expire(self, subscription: Json, invoice: Json) -> None:
        if subscription["status"] == "incomplete":
            if invoice["status"] == "open":
                self._invoices.void(invoice)
            subscription["ended_at"] = subscription["created"] + INCOMPLETE_SECONDS
            self._set_status(subscription, "incomplete_expired")

    def _set_status(self, subscription: Json, status: str) -> None:
        previous = {"status": subscription["status"]}
        subscription["status"] = status
        self._updated(subscription, previous)

    def _updated(self, subscription: Json, previous: Json) -> None:
        self._world.events.emit("customer.subscription.updated", subscription, previous)

    def _await_end(self, subscription: Json, timeline: Timeline) -> None:
        """Put the next end on the agenda: of the period, or an earlier cancellation."""
        end = _items(subscription)[0]["current_period_end"]
        when = min(end, subscription["cancel_at"] or end)

        def reach() -> None:
            # A change in between put another end on the agenda.
            period_end = _items(subscription)[0]["current_period_end"]
            if when == min(period_end, subscription["cancel_at"] or period_end):
                self._reach_end(subscription, when, timeline)

        timeline.at(max(when, timeline.now()), reach)

    def _reach_end(self, subscription: Json, when: int, timeline: Timeline) -> None:
        if subscription["status"] in (*ENDED, "incomplete", "paused"):
            return
        if subscription["cancel_at"] == when:
            self.end(subscription, "cancellation_requested")
            return
        is_trial = subscription["status"] == "trialing"
        has_method = self._invoices.method_of(self._customer_of(subscription), subscription)
        missing = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
        if is_trial and not has_method and missing != "create_invoice":
            if missing == "cancel":
                self.end(subscription, "cancellation_requested")
            else:
                self._set_status(subscription, "paused")
                self._world.events.emit("customer.subscription.paused", subscription)
            return
        self._renew(subscription, when, is_trial=is_trial)

    def _renew(self, subscription: Json, when: int, *, is_trial: bool) -> None:
        previous: Json = {
            "items": {"data": [dict(one) for one in _items(subscription)]},
            "latest_invoice": subscription["latest_invoice"],
        }
        if is_trial:
            previous["status"] = "trialing"
            subscription["status"] = "active"
        self._start_period(subscription, when)
        invoice = self._invoice(subscription, "subscription_cycle")
        self._updated(subscription, previous)
        pause = subscription["pause_collection"]
        if pause is None:
            self._invoices.finalize_later(invoice)
        elif pause["behavior"] == "keep_as_draft":
            invoice["auto_advance"] = False
        else:
            self._invoices.finalize(invoice)
            status = "void" if pause["behavior"] == "void" else "uncollectible"
            self._invoices.void(invoice, status)

    def _start_period(self, subscription: Json, start: int) -> None:
        """Begin the period at `start` for every item, and await its end."""
        anchor = subscription["billing_cycle_anchor"]
        for item in _items(subscription):
            item["current_period_start"] = start
            item["current_period_end"] = next_period(anchor, item["price"]["recurring"], start)
        if subscription["cancel_at_period_end"]:
            subscription["cancel_at"] = _items(subscription)[0]["current_period_end"]
        self._await_end(subscription, self._world.timeline_of(self._customer_of(subscription)))

    def _period_line(self, subscription: Json, item: Json) -> InvoiceLine:
        price, quantity = item["price"], item["quantity"]
        is_trial = subscription["status"] == "trialing"
        product = self._world.store.get("product", price["product"])
        title = f"{quantity} x {product['name']}"
        return InvoiceLine(
            subtotal=0 if is_trial else price["unit_amount"] * quantity,
            is_tax_inclusive=tax_is_inclusive(price),
            title=f"Trial period for {product['name']}" if is_trial else title,
            period=(item["current_period_start"], item["current_period_end"]),
            price=price,
            quantity=quantity,
            subscription=subscription["id"],
            parent={
                "invoice_item_details": None,
                "subscription_item_details": {
                    "invoice_item": None,
                    "proration": False,
                    "proration_details": {"credited_items": None},
                    "subscription": subscription["id"],
                    "subscription_item": item["id"],
                },
                "type": "subscription_item_details",
            },
        )

    def _change_prices(
        self, subscription: Json, prices: list[tuple[Json, Json, int]], proration: str, now: int
    ) -> None:
        """Put other prices or quantities on items, and settle the rest of the period.

        Another interval begins a period now, and is invoiced now.
        """
        customer = self._customer_of(subscription)
        is_other_interval = False
        for item, price, quantity in prices:
            old = (item["price"], item["quantity"])
            is_other_interval |= old[0]["recurring"] != price["recurring"]
            if proration != "none" and subscription["status"] != "trialing":
                self._prorate(customer, subscription, item, old, -1, now)
                if not is_other_interval:
                    self._prorate(customer, subscription, item, (price, quantity), 1, now)
            item.update(price=price, quantity=quantity)
        if is_other_interval and subscription["status"] != "trialing":
            subscription["billing_cycle_anchor"] = now
            self._start_period(subscription, now)
        if is_other_interval or proration == "always_invoice":
            invoice = self._invoice(
                subscription, "subscription_update", has_periods=is_other_interval
            )
            self._invoices.finalize(invoice)
            self._invoices.collect(invoice)

    def _prorate(
        self,
        customer: Json,
        subscription: Json,
        item: Json,
        what: tuple[Json, int],
        sign: int,
        now: int,
    ) -> None:
        price, quantity = what
        start, end = item["current_period_start"], item["current_period_end"]
        share = share_of_period(price["unit_amount"] * quantity, now, start, end)
        product = self._world.store.get("product", price["product"])
        word = "Remaining" if sign > 0 else "Unused"
        self._pending.make(
            customer,
            sign * share,
            subscription["currency"],
            (now, end),
            subscription["id"],
            {
                "description": f"{word} time on {product['name']}",
                "proration": True,
                "quantity": quantity,
                "quantity_decimal": str(quantity),
                "subscription_item": item["id"],
                "pricing": {
                    "price_details": {"price": price["id"], "product": price["product"]},
                    "type": "price_details",
                    "unit_amount_decimal": price["unit_amount_decimal"],
                },
            },
        )

    def _item_line(self, item: Json) -> InvoiceLine:
        parent, pricing = item["parent"], item["pricing"]
        subscription = parent["subscription_details"]["subscription"] if parent else None
        return InvoiceLine(
            subtotal=item["amount"],
            title=item["description"] or "",
            period=(item["period"]["start"], item["period"]["end"]),
            quantity=item["quantity"],
            price=self._world.store.get("price", pricing["price_details"]["price"])
            if pricing
            else None,
            subscription=subscription,
            parent={
                "invoice_item_details": {
                    "invoice_item": item["id"],
                    "proration": item["proration"],
                    "proration_details": {"credited_items": None},
                    "subscription": subscription,
                },
                "subscription_item_details": None,
                "type": "invoice_item_details",
            },
        )

    def _move_trial(self, subscription: Json, trial_end: int) -> None:
        subscription["trial_end"] = subscription["billing_cycle_anchor"] = trial_end
        for item in _items(subscription):
            item["current_period_end"] = trial_end
        timeline = self._world.timeline_of(self._customer_of(subscription))
        if trial_end <= timeline.now():
            self._reach_end(subscription, trial_end, timeline)
        else:
            self._await_end(subscription, timeline)

    def _tell_trial_end(self, subscription: Json, trial_end: int) -> None:
        if subscription["status"] == "trialing" and subscription["trial_end"] == trial_end:
            self._world.events.emit("customer.subscription.trial_will_end", subscription)

    def _ending(self, subscription: Json, is_wanted: bool, now: int) -> Json:
        end = _items(subscription)[0]["current_period_end"]
        return {
            "cancel_at_period_end": is_wanted,
            "cancel_at": end if is_wanted else None,
            "canceled_at": now if is_wanted else None,
            "cancellation_details": {
                **subscription["cancellation_details"],
                "reason": "cancellation_requested" if is_wanted else None,
            },
        }

    def _pause(self, given: Parameters) -> Json | None:
        pause = given.child("pause_collection")
        if not pause:
            return None
        behavior = pause.choice("behavior", ("keep_as_draft", "mark_uncollectible", "void"))
        if behavior is None:
            raise pause.absent("behavior")
        return {"behavior": behavior, "resumes_at": None}

    def _new_prices(
        self, subscription: Json, items: list[Parameters]
    ) -> list[tuple[Json, Json, int]]:
        """Read the changes of items: item, price, quantity."""
        held = {item["id"]: item for item in _items(subscription)}
        changes = []
        for one in items:
            identifier = one.text("id")
            if identifier not in held:
                raise bad_parameter(
                    "The simulator changes the items that are there: give their ids.",
                    one.name_of("id"),
                )
            item = held[identifier]
            wanted = one.text("price")
            price = self._recurring(wanted, one.name_of("price")) if wanted else item["price"]
            quantity = one.integer("quantity", 1, QUANTITY_MAX) or item["quantity"]
            if (price["id"], quantity) != (item["price"]["id"], item["quantity"]):
                changes.append((item, price, quantity))
        return changes

    def _item(self, one: Parameters) -> tuple[Json, int]:
        price = self._recurring(one.required("price"), one.name_of("price"))
        return price, one.integer("quantity", 1, QUANTITY_MAX) or 1

    def _recurring(self, identifier: str, param: str) -> Json:
        price = self._world.store.get("price", identifier, param)
        if not price["recurring"]:
            raise bad_parameter(
                "The price specified is set to `type=one_time` but this field only accepts "
                "prices with `type=recurring`.",
                param,
            )
        return price

    def _make_item(
        self, subscription: str, price: Json, quantity: int, period: tuple[int, int]
    ) -> Json:
        item: Json = {
            "id": new_id("si", 14),
            "object": "subscription_item",
            "billing_thresholds": None,
            "created": period[0],
            "current_period_end": period[1],
            "current_period_start": period[0],
            "discounts": [],
            "metadata": {},
            "price": price,
            "quantity": quantity,
            "subscription": subscription,
            "tax_rates": [],
        }
        return self._world.store.add(item)

    def _own_method(self, given: Parameters, customer: Json) -> str | None:
        identifier = given.text("default_payment_method")
        if identifier is None:
            return None
        method = self._methods.get(identifier, "default_payment_method")
        if method["customer"] != customer["id"]:
            raise Problem(
                400,
                "invalid_request_error",
                "The customer does not have a payment method with the ID "
                f"{identifier}. The payment method must be attached to the customer.",
                code="resource_missing",
                param="default_payment_method",
            )
        return str(method["id"])

    def _discounts(self, given: Parameters) -> list[Json]:
        discounts: list[Json] = []
        for one in given.children("discounts"):
            coupon = one.required("coupon")
            self._coupons.require_coupon(coupon)
            discounts.append({"coupon": coupon, "promotion_code": None})
        return discounts


def read_trial_end(given: Parameters, now: int) -> int | None:
    """Read `trial_period_days` or `trial_end`."""
    days = given.integer("trial_period_days", 1, TRIAL_DAYS_MAX)
    until = given.integer("trial_end", now + 1, TIME_MAX)
    if days and until:
        raise bad_parameter(
            "You may only specify one of these parameters: trial_end, trial_period_days.",
            "trial_end",
        )
    return now + days * DAY_SECONDS if days else until


def read_missing_method(given: Parameters) -> str:
    """Read how a trial without a payment method is to end."""
    ending = given.child("trial_settings").child("end_behavior")
    chosen = ending.choice("missing_payment_method", ("cancel", "create_invoice", "pause"))
    return chosen or "create_invoice"


def _items(subscription: Json) -> list[Json]:
    items: list[Json] = subscription["items"]["data"]
    return items


def _differences(row: Json, changed: Json) -> Json:
    """Return the values that a change replaces."""
    return {name: row[name] for name in changed if row[name] != changed[name]}
