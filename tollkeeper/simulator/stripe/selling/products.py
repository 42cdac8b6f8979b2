"""Products."""

from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

TEXTS = ("description", "statement_descriptor", "tax_code", "unit_label", "url")


class Products:
    """Makes, changes and lists products."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = world.store.collection("product")

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/products", self.create),
            Operation("GET", "/v1/products", self.browse),
            Operation("GET", "/v1/products/{id}", self.retrieve),
            Operation("POST", "/v1/products/{id}", self.update),
            Operation("DELETE", "/v1/products/{id}", self.delete),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        identifier, name = given.text("id"), given.required("name")
        members = self._members(given)
        metadata = given.metadata()
        given.finish()
        if identifier and self._world.store.find(identifier):
            raise invalid("Product already exists.", code="resource_already_exists")
        return self.make(name, {"metadata": metadata, **members}, identifier)

    def make(self, name: str, members: Json, identifier: str | None = None) -> Json:
        """Make a product and tell of it."""
        now = self._world.wall.now()
        product: Json = {
            "id": identifier or new_id("prod", 14),
            "object": "product",
            "active": True,
            "created": now,
            "default_price": None,
            "description": None,
            "images": [],
            "livemode": False,
            "marketing_features": [],
            "metadata": {},
            "name": name,
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "unit_label": None,
            "updated": now,
            "url": None,
            **members,
        }
        self._world.store.add(product)
        self._world.events.emit("product.created", product)
        return product

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("product", call.path["id"])

    def update(self, call: Call) -> Json:
        product = self._world.store.get("product", call.path["id"])
        given = call.parameters
        changed = self._members(given)
        changed["metadata"] = given.metadata(product["metadata"])
        if given.has("name"):
            changed["name"] = given.required("name")
        if given.has("default_price"):
            price = given.text("default_price")
            changed["default_price"] = price
            if price:
                self._world.store.get("price", price, "default_price")
        given.finish()
        previous = {name: product[name] for name in changed if product[name] != changed[name]}
        product.update(changed)
        if previous:
            product["updated"] = self._world.wall.now()
            self._world.events.emit("product.updated", product, previous)
        return product

    def delete(self, call: Call) -> Json:
        product = self._world.store.get("product", call.path["id"])
        call.parameters.finish()
        if self._world.store.of("price").where(product=product["id"]):
            raise invalid(
                "This product cannot be deleted because it has one or more user-created prices."
            )
        self._world.store.remove(product)
        self._world.events.emit("product.deleted", product)
        return {"id": product["id"], "object": "product", "deleted": True}

    def browse(self, call: Call) -> Json:
        given = call.parameters
        active = given.choice("active", ("true", "false"))
        ids, created = set(given.texts("ids")), by_created(given)

        def keep(row: Json) -> bool:
            return (
                active in (None, str(row["active"]).lower())
                and (not ids or row["id"] in ids)
                and created(row)
            )

        return self._all.page(given, call.url, keep)

    def _members(self, given: Parameters) -> Json:
        members: Json = {name: given.text(name) for name in TEXTS if given.has(name)}
        if given.has("active"):
            members["active"] = given.flag("active")
        if given.has("images"):
            members["images"] = given.texts("images")
        if given.has("marketing_features"):
            features = given.children("marketing_features")
            members["marketing_features"] = [{"name": one.required("name")} for one in features]
        return members
