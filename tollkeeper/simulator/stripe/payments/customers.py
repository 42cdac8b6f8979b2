"""Customers."""

from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

TEXTS = ("description", "email", "name", "phone")


class Customers:
    """Makes, changes and lists customers."""

    def __init__(self, world: World, methods: PaymentMethods) -> None:
        self._world = world
        self._methods = methods
        self._all = world.store.collection("customer", "email", "test_clock")

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/customers", self.create),
            Operation("GET", "/v1/customers", self.browse),
            Operation("GET", "/v1/customers/{customer}", self.retrieve),
            Operation("POST", "/v1/customers/{customer}", self.update),
            Operation("DELETE", "/v1/customers/{customer}", self.delete),
            Operation("GET", "/v1/customers/{customer}/payment_methods", self.list_methods),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        texts = {name: given.text(name) for name in TEXTS}
        address, metadata = given.address(), given.metadata()
        clock = given.text("test_clock")
        if clock:
            self._world.store.get("test_helpers.test_clock", clock, "test_clock")
        method = given.text("payment_method")
        default = self._default_method(given)
        given.finish()
        customer = self.make(texts, address, metadata, clock)
        if method:
            self._methods.attach(method, customer)
        if default:
            customer["invoice_settings"]["default_payment_method"] = self._methods.attach(
                default, customer
            )["id"]
        return customer

    def make(
        self,
        texts: dict[str, str | None],
        address: Json | None = None,
        metadata: dict[str, str] | None = None,
        clock: str | None = None,
    ) -> Json:
        """Make a customer and tell of it."""
        timeline = self._world.clocks[clock] if clock else self._world.wall
        customer: Json = {
            "id": new_id("cus", 14),
            "object": "customer",
            "address": address,
            "balance": 0,
            "created": timeline.now(),
            "currency": None,
            "customer_account": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "discount": None,
            "email": None,
            "invoice_prefix": new_id("", 8)[1:].upper(),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": False,
            "metadata": metadata or {},
            "name": None,
            "next_invoice_sequence": 1,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": clock,
            **texts,
        }
        self._world.store.add(customer)
        self._world.events.emit("customer.created", customer)
        return customer

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("customer", call.path["customer"])

    def update(self, call: Call) -> Json:
        customer = self._world.store.get("customer", call.path["customer"])
        given = call.parameters
        changed: Json = {name: given.text(name) for name in TEXTS if given.has(name)}
        if given.has("address"):
            changed["address"] = given.address()
        if given.has("metadata"):
            changed["metadata"] = given.metadata(customer["metadata"])
        if given.has("invoice_settings"):
            default = self._default_method(given)
            if default and self._methods.get(default)["customer"] != customer["id"]:
                raise invalid(
                    "The customer does not have a payment method with the ID "
                    f"{default}. The payment method must be attached to the customer.",
                    "invoice_settings[default_payment_method]",
                    "resource_missing",
                )
            changed["invoice_settings"] = {
                **customer["invoice_settings"],
                "default_payment_method": default,
            }
        given.finish()
        previous = {name: customer[name] for name in changed if customer[name] != changed[name]}
        customer.update(changed)
        self._all.reindex(customer)
        if previous:
            self._world.events.emit("customer.updated", customer, previous)
        return customer

    def delete(self, call: Call) -> Json:
        customer = self._world.store.get("customer", call.path["customer"])
        call.parameters.finish()
        self._world.store.remove(customer)
        self._world.events.emit("customer.deleted", customer)
        return {"id": customer["id"], "object": "customer", "deleted": True}

    def browse(self, call: Call) -> Json:
        given = call.parameters
        email, clock, keep = given.text("email"), given.text("test_clock"), by_created(given)
        return self._all.page(given, call.url, keep, email=email, test_clock=clock)

    def list_methods(self, call: Call) -> Json:
        customer = self._world.store.get("customer", call.path["customer"])
        return self._methods.page(call, customer["id"])

    def _default_method(self, given: Parameters) -> str | None:
        return given.child("invoice_settings").text("default_payment_method")
