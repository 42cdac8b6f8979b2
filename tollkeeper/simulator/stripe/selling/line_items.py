"""The lines of a purchase, and its sums."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tollkeeper.simulator.stripe.selling.prices import SalePrices
from tollkeeper.simulator.stripe.selling.products import Products
from tollkeeper.simulator.stripe.store import new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import World

QUANTITY_MAX = 999_999


@dataclass(slots=True, kw_only=True)
class Amounts:
    """The sums of one line in cents; `total` is what is paid, with tax."""

    subtotal: int
    is_tax_inclusive: bool = False
    discount: int = 0
    tax: int = 0

    @property
    def total(self) -> int:
        net = self.subtotal - self.discount
        return net if self.is_tax_inclusive else net + self.tax


@dataclass(slots=True, kw_only=True)
class Line(Amounts):
    """One price, so many times."""

    price: Json
    quantity: int
    title: str
    id: str = field(default_factory=lambda: new_id("li"))

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "object": "item",
            "adjustable_quantity": None,
            "amount_discount": self.discount,
            "amount_subtotal": self.subtotal,
            "amount_tax": self.tax,
            "amount_total": self.total,
            "currency": self.price["currency"],
            "description": self.title,
            "metadata": {},
            "price": self.price,
            "quantity": self.quantity,
        }


def share_discount(lines: Sequence[Amounts], amount: int) -> None:
    """Spread a discount over lines in proportion, to the cent; credits take no part."""
    charged = [line for line in lines if line.subtotal > 0]
    left_amount, left_subtotal = amount, sum(line.subtotal for line in charged)
    for line in charged:
        line.discount = left_amount * line.subtotal // left_subtotal
        left_amount -= line.discount
        left_subtotal -= line.subtotal


def apply_tax(lines: Sequence[Amounts], percent: int) -> None:
    """Put tax on each line, on top of the price or out of it as the price says."""
    for line in lines:
        net = line.subtotal - line.discount
        base = 100 + percent if line.is_tax_inclusive else 100
        line.tax = (net * percent * 2 + base) // (base * 2)


def tax_is_inclusive(price: Json) -> bool:
    return bool(price["tax_behavior"] == "inclusive")


class LineReader:
    """Reads `line_items`. What it makes (prices, products) it makes after all was read."""

    def __init__(self, world: World, products: Products, prices: SalePrices) -> None:
        self._world = world
        self._products = products
        self._prices = prices

    def read(self, items: list[Parameters]) -> list[Callable[[], Line]]:
        """Return one maker for each line. Raises Problem for lines that make no sense."""
        makers = [self._maker(item) for item in items]
        if not makers:
            raise bad_parameter("Missing required param: line_items.", "line_items")
        return makers

    def _maker(self, item: Parameters) -> Callable[[], Line]:
        quantity = item.integer("quantity", 1, QUANTITY_MAX) or 1
        identifier, data = item.text("price"), item.child("price_data")
        if bool(identifier) == bool(data):
            raise bad_parameter(
                "You must specify exactly one of price and price_data.", item.name_of("price")
            )
        if identifier:
            price = self._world.store.get("price", identifier, item.name_of("price"))
            if not price["active"]:
                raise invalid(
                    "The price specified is inactive. This field only accepts active prices.",
                    item.name_of("price"),
                )
            return lambda: self._line(price, quantity)
        members = self._prices.read(data)
        product, product_data = data.text("product"), data.child("product_data")
        if bool(product) == bool(product_data):
            raise bad_parameter(
                "You must specify exactly one of product and product_data.",
                data.name_of("product"),
            )
        if product:
            self._world.store.get("product", product, data.name_of("product"))
            return lambda: self._line(self._prices.make(product, members), quantity)
        name = product_data.required("name")
        inline: Json = {"metadata": product_data.metadata(), "active": False}
        for member in ("description", "tax_code"):
            inline[member] = product_data.text(member)
        inline["images"] = product_data.texts("images")

        def make() -> Line:
            made = self._products.make(name, inline)
            return self._line(self._prices.make(made["id"], {**members, "active": False}), quantity)

        return make

    def _line(self, price: Json, quantity: int) -> Line:
        product = self._world.store.get("product", price["product"])
        return Line(
            price=price,
            quantity=quantity,
            title=product["name"],
            subtotal=price["unit_amount"] * quantity,
            is_tax_inclusive=tax_is_inclusive(price),
        )
