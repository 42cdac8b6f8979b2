"""Invoice items: charges and credits that wait for a customer's next invoice."""

from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World


class InvoiceItems:
    """Makes and lists invoice items."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = world.store.collection("invoiceitem", "customer", "invoice")

    def operations(self) -> list[Operation]:
        one = "/v1/invoiceitems/{invoiceitem}"
        return [
            Operation("POST", "/v1/invoiceitems", self.create),
            Operation("GET", "/v1/invoiceitems", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("DELETE", one, self.delete),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        customer = self._world.store.get("customer", given.required("customer"), "customer")
        amount = given.integer("amount", -99_999_999)
        if amount is None:
            raise given.absent("amount")
        currency = given.currency()
        subscription = given.text("subscription")
        if subscription:
            self._world.store.get("subscription", subscription, "subscription")
        description, metadata = given.text("description"), given.metadata()
        given.finish()
        now = self._world.timeline_of(customer).now()
        members: Json = {"description": description, "metadata": metadata}
        return self.make(customer, amount, currency, (now, now), subscription, members)

    def make(
        self,
        customer: Json,
        amount: int,
        currency: str,
        period: tuple[int, int],
        subscription: str | None,
        members: Json,
    ) -> Json:
        """Make an item and tell of it; an `amount` below 0 is a credit."""
        details: Json = {"subscription": subscription}
        if members.get("subscription_item"):
            details["subscription_item"] = members.pop("subscription_item")
        item: Json = {
            "id": new_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "date": self._world.timeline_of(customer).now(),
            "description": None,
            "discountable": False,
            "discounts": [],
            "invoice": None,
            "livemode": False,
            "metadata": {},
            "net_amount": amount,
            "parent": {"subscription_details": details, "type": "subscription_details"}
            if subscription
            else None,
            "period": {"end": period[1], "start": period[0]},
            "pricing": None,
            "proration": False,
            "quantity": 1,
            "quantity_decimal": "1",
            "tax_rates": [],
            "test_clock": customer["test_clock"],
            **members,
        }
        self._world.store.add(item)
        self._world.events.emit("invoiceitem.created", item)
        return item

    def take_pending(self, customer: str, subscription: str, invoice: str) -> list[Json]:
        """Return the items that wait, and put them on an invoice.

        Items of another subscription stay.
        """
        taken = []
        for item in self._all.where(customer=customer):
            parent = item["parent"]
            of = parent["subscription_details"]["subscription"] if parent else subscription
            if item["invoice"] is None and of == subscription:
                item["invoice"] = invoice
                self._all.reindex(item)
                taken.append(item)
        return taken

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("invoiceitem", call.path["invoiceitem"])

    def delete(self, call: Call) -> Json:
        item = self._world.store.get("invoiceitem", call.path["invoiceitem"])
        call.parameters.finish()
        if item["invoice"]:
            raise invalid("An invoice item on an invoice cannot be deleted.")
        self._world.store.remove(item)
        self._world.events.emit("invoiceitem.deleted", item)
        return {"id": item["id"], "object": "invoiceitem", "deleted": True}

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, invoice = given.text("customer"), given.text("invoice")
        pending = given.choice("pending", ("true", "false"))
        created = by_created(given)

        def keep(row: Json) -> bool:
            is_pending = str(row["invoice"] is None).lower()
            return pending in (None, is_pending) and created({"created": row["date"]})

        return self._all.page(given, call.url, keep, customer=customer, invoice=invoice)
