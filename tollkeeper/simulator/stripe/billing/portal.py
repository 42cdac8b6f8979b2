"""The Customer Portal: sessions, and the pages to change a card or cancel."""

from html import escape
from typing import Final

from aiohttp import web

from tollkeeper.simulator.stripe.billing.invoices import Invoices
from tollkeeper.simulator.stripe.billing.subscriptions import Subscriptions
from tollkeeper.simulator.stripe.pages import (
    card_field,
    card_of,
    error_text,
    money,
    page,
    read_fields,
)
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.store import new_id
from tollkeeper.simulator.stripe.wire.problem import Json, Problem
from tollkeeper.simulator.stripe.world import Call, Operation, World

CONFIGURATION: Final = "bpc_simulator"


class Portal:
    """Makes portal sessions and serves their pages, and those of invoices."""

    def __init__(
        self,
        world: World,
        methods: PaymentMethods,
        subscriptions: Subscriptions,
        invoices: Invoices,
    ) -> None:
        self._world = world
        self._methods = methods
        self._subscriptions = subscriptions
        self._invoices = invoices
        world.store.collection("billing_portal.session")
        world.store.collection("billing_portal.configuration")
        world.store.add(_configuration(world.wall.now()))

    def operations(self) -> list[Operation]:
        path = "/v1/billing_portal/configurations"
        return [
            Operation("POST", "/v1/billing_portal/sessions", self.create),
            Operation("GET", path, self.browse),
            Operation("GET", f"{path}/{{configuration}}", self.retrieve),
        ]

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/p/session/{session}", self.show),
            web.post("/p/session/{session}", self.change),
            web.get("/invoices/{invoice}", self.show_invoice),
            web.post("/invoices/{invoice}", self.pay_invoice),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        customer = given.required("customer")
        self._world.store.get("customer", customer, "customer")
        configuration = given.text("configuration", CONFIGURATION) or ""
        self._world.store.get("billing_portal.configuration", configuration, "configuration")
        return_url, locale = given.text("return_url"), given.text("locale")
        given.finish()
        identifier = new_id("bps")
        session: Json = {
            "id": identifier,
            "object": "billing_portal.session",
            "configuration": configuration,
            "created": self._world.wall.now(),
            "customer": customer,
            "customer_account": None,
            "flow": None,
            "livemode": False,
            "locale": locale,
            "on_behalf_of": None,
            "return_url": return_url,
            "url": f"{self._world.base_url}/p/session/{identifier}",
        }
        return self._world.store.add(session)

    def browse(self, call: Call) -> Json:
        rows = self._world.store.of("billing_portal.configuration")
        call.parameters.choice("is_default", ("true", "false"))
        call.parameters.choice("active", ("true", "false"))
        return rows.page(call.parameters, call.url)

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        identifier = call.path["configuration"]
        return self._world.store.get("billing_portal.configuration", identifier)

    async def show(self, request: web.Request) -> web.Response:
        self._world.wall.catch_up()
        return self._page(request, None)

    async def change(self, request: web.Request) -> web.Response:
        """Do what the button says: `card`, `cancel` or `keep` with a subscription."""
        fields = await read_fields(request)
        self._world.wall.catch_up()
        try:
            customer = self._customer_of(request)
            running = self._subscriptions.running_of(customer["id"])
            chosen = [one for one in running if one["id"] == fields.get("subscription")]
            if fields.get("action") == "card":
                self._change_card(customer, running, fields)
            elif chosen and fields.get("action") in ("cancel", "keep"):
                is_wanted = fields["action"] == "cancel"
                self._subscriptions.ask_to_cancel(chosen[0], is_wanted=is_wanted)
        except Problem as problem:
            return self._page(request, problem.message)
        raise web.HTTPSeeOther(request.path)

    async def show_invoice(self, request: web.Request) -> web.Response:
        return self._invoice_page(request, None)

    async def pay_invoice(self, request: web.Request) -> web.Response:
        """Pay an open invoice with another card, the customer being there."""
        fields = await read_fields(request)
        self._world.wall.catch_up()
        message = None
        try:
            invoice = self._invoices.get(request.match_info["invoice"])
            customer = self._world.store.get("customer", invoice["customer"])
            made = self._methods.from_card(card_of(fields))
            method = self._methods.attach(made["id"], customer)
            decline = self._invoices.collect(invoice, is_off_session=False, method=method)
            message = decline.message if decline else None
        except Problem as problem:
            message = problem.message
        return self._invoice_page(request, message)

    def _customer_of(self, request: web.Request) -> Json:
        store = self._world.store
        session = store.get("billing_portal.session", request.match_info["session"])
        return store.get("customer", session["customer"])

    def _change_card(self, customer: Json, running: list[Json], fields: dict[str, str]) -> None:
        made = self._methods.from_card(card_of(fields))
        method = self._methods.attach(made["id"], customer)
        self._methods.mark_set_up(method)
        previous = {"invoice_settings": dict(customer["invoice_settings"])}
        customer["invoice_settings"]["default_payment_method"] = method["id"]
        self._world.events.emit("customer.updated", customer, previous)
        for subscription in running:
            self._subscriptions.set_method(subscription, method["id"])

    def _page(self, request: web.Request, message: str | None) -> web.Response:
        try:
            customer = self._customer_of(request)
        except Problem as problem:
            return page("Billing", error_text(problem.message), 404)
        session = self._world.store.get("billing_portal.session", request.match_info["session"])
        blocks = [error_text(message)]
        for one in self._subscriptions.running_of(customer["id"]):
            ends = one["cancel_at_period_end"]
            word, label = ("keep", "Don't cancel") if ends else ("cancel", "Cancel subscription")
            names = ", ".join(
                self._world.store.get("product", item["price"]["product"])["name"]
                for item in one["items"]["data"]
            )
            blocks.append(
                f"<form method=post><p>{escape(names)}: {one['status']}"
                f"{', ends with the period' if ends else ''}</p>"
                f"<input type=hidden name=subscription value={one['id']}>"
                f"<button name=action value={word}>{label}</button></form>"
            )
        blocks.append(
            f"<form method=post>{card_field('New card')}"
            "<button name=action value=card>Change card</button></form>"
        )
        for invoice in self._world.store.of("invoice").where(customer=customer["id"])[::-1]:
            if invoice["hosted_invoice_url"]:
                total = money(invoice["total"], invoice["currency"])
                blocks.append(
                    f"<p><a href='/invoices/{invoice['id']}'>{escape(invoice['number'])}</a> "
                    f"{total} {invoice['status']}</p>"
                )
        if session["return_url"]:
            blocks.append(f"<p><a href='{escape(session['return_url'])}'>Return</a></p>")
        return page("Billing", "".join(blocks))

    def _invoice_page(self, request: web.Request, message: str | None) -> web.Response:
        try:
            invoice = self._invoices.get(request.match_info["invoice"])
        except Problem as problem:
            return page("Invoice", error_text(problem.message), 404)
        total = money(invoice["total"], invoice["currency"])
        form = (
            f"<form method=post>{card_field()}<button>Pay {total}</button></form>"
            if invoice["status"] == "open"
            else ""
        )
        return page(
            f"Invoice {invoice['number']}",
            f"<p>{total}, {invoice['status']}</p>{error_text(message)}{form}",
        )


def _configuration(now: int) -> Json:
    return {
        "id": CONFIGURATION,
        "object": "billing_portal.configuration",
        "active": True,
        "application": None,
        "business_profile": dict.fromkeys(
            ("headline", "privacy_policy_url", "terms_of_service_url")
        ),
        "created": now,
        "default_return_url": None,
        "features": {
            "customer_update": {"allowed_updates": [], "enabled": False},
            "invoice_history": {"enabled": True},
            "payment_method_update": {"enabled": True, "payment_method_configuration": None},
            "subscription_cancel": {
                "cancellation_reason": {"enabled": False, "options": []},
                "enabled": True,
                "mode": "at_period_end",
                "proration_behavior": "none",
            },
            "subscription_update": {
                "billing_cycle_anchor": None,
                "default_allowed_updates": [],
                "enabled": False,
                "products": None,
                "proration_behavior": "none",
                "schedule_at_period_end": {"conditions": []},
                "trial_update_behavior": "end_trial",
            },
        },
        "is_default": True,
        "livemode": False,
        "login_page": {"enabled": False, "url": None},
        "metadata": {},
        "name": None,
        "updated": now,
    }
