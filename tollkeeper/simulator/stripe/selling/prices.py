"""Prices: an amount for a product, once or each interval."""

from tollkeeper.simulator.stripe.selling.products import Products
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter
from tollkeeper.simulator.stripe.world import Call, Operation, World

INTERVALS = ("day", "week", "month", "year")
TAX_BEHAVIORS = ("exclusive", "inclusive", "unspecified")
LOOKUP_KEYS_MAX = 10


class SalePrices:
    """Makes, changes and lists prices."""

    def __init__(self, world: World, products: Products) -> None:
        self._world = world
        self._products = products
        self._all = world.store.collection("price", "product", "lookup_key")

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/prices", self.create),
            Operation("GET", "/v1/prices", self.browse),
            Operation("GET", "/v1/prices/{price}", self.retrieve),
            Operation("POST", "/v1/prices/{price}", self.update),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        members = self.read(given)
        product, product_data = given.text("product"), given.child("product_data")
        name = product_data.required("name") if product_data else None
        product_metadata = product_data.metadata()
        given.choice("billing_scheme", ("per_unit",))
        members |= {
            "active": given.flag("active", True),
            "lookup_key": given.text("lookup_key"),
            "metadata": given.metadata(),
            "nickname": given.text("nickname"),
        }
        moves_key = given.flag("transfer_lookup_key")
        given.finish()
        if bool(product) == bool(name):
            raise bad_parameter(
                "You must specify exactly one of these parameters: product, product_data.",
                "product",
            )
        if product:
            self._world.store.get("product", product, "product")
        self._claim_key(members["lookup_key"], moves_key, None)
        if name:
            product = self._products.make(name, {"metadata": product_metadata})["id"]
        return self.make(product or "", members)

    def read(self, given: Parameters) -> Json:
        """Read amount, currency, interval and tax of a new price, also one that is inline."""
        amount = given.integer("unit_amount")
        if amount is None:
            raise given.absent("unit_amount")
        recurring = given.child("recurring")
        members: Json = {
            "currency": given.currency(),
            "unit_amount": amount,
            "unit_amount_decimal": str(amount),
            "tax_behavior": given.choice("tax_behavior", TAX_BEHAVIORS, "unspecified"),
            "recurring": None,
            "type": "one_time",
        }
        if recurring:
            recurring.choice("usage_type", ("licensed",))
            interval = recurring.choice("interval", INTERVALS)
            if interval is None:
                raise recurring.absent("interval")
            members["type"] = "recurring"
            members["recurring"] = {
                "interval": interval,
                "interval_count": recurring.integer("interval_count", 1, 36) or 1,
                "meter": None,
                "usage_type": "licensed",
            }
        return members

    def make(self, product: str, members: Json) -> Json:
        """Make a price and tell of it."""
        price: Json = {
            "id": new_id("price"),
            "object": "price",
            "active": True,
            "billing_scheme": "per_unit",
            "created": self._world.wall.now(),
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": None,
            "metadata": {},
            "nickname": None,
            "product": product,
            "tiers_mode": None,
            "transform_quantity": None,
            **members,
        }
        self._world.store.add(price)
        self._world.events.emit("price.created", price)
        return price

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("price", call.path["price"])

    def update(self, call: Call) -> Json:
        price = self._world.store.get("price", call.path["price"])
        given = call.parameters
        changed: Json = {"metadata": given.metadata(price["metadata"])}
        if given.has("active"):
            changed["active"] = given.flag("active")
        changed |= {
            name: given.text(name) for name in ("lookup_key", "nickname") if given.has(name)
        }
        if given.has("tax_behavior"):
            changed["tax_behavior"] = given.choice("tax_behavior", TAX_BEHAVIORS)
        moves_key = given.flag("transfer_lookup_key")
        given.finish()
        self._claim_key(changed.get("lookup_key"), moves_key, price["id"])
        previous = {name: price[name] for name in changed if price[name] != changed[name]}
        price.update(changed)
        self._all.reindex(price)
        if previous:
            self._world.events.emit("price.updated", price, previous)
        return price

    def browse(self, call: Call) -> Json:
        given = call.parameters
        active = given.choice("active", ("true", "false"))
        keys, created = set(given.texts("lookup_keys")), by_created(given)
        product, kind = given.text("product"), given.choice("type", ("one_time", "recurring"))
        currency = given.text("currency")
        if len(keys) > LOOKUP_KEYS_MAX:
            raise bad_parameter(
                f"lookup_keys may have at most {LOOKUP_KEYS_MAX} members.", "lookup_keys"
            )

        def keep(row: Json) -> bool:
            return (
                active in (None, str(row["active"]).lower())
                and (not keys or row["lookup_key"] in keys)
                and created(row)
            )

        return self._all.page(given, call.url, keep, product=product, type=kind, currency=currency)

    def _claim_key(self, key: str | None, moves: bool, mine: str | None) -> None:
        """Raises Problem if another price has the key, unless it moves over."""
        holders = self._all.where(lookup_key=key) if key else []
        for holder in holders:
            if holder["id"] == mine:
                continue
            if not moves:
                raise bad_parameter(
                    f"A price (`{holder['id']}`) already uses that lookup key.", "lookup_key"
                )
            holder["lookup_key"] = None
            self._world.events.emit("price.updated", holder, {"lookup_key": key})
