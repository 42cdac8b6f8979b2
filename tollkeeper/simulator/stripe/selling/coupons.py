"""Coupons and the promotion codes that customers type."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

DURATIONS: Final = ("forever", "once", "repeating")
MONTHS_MAX = 60


class Coupons:
    """Makes, changes, lists and redeems coupons and promotion codes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._coupons = world.store.collection("coupon")
        world.store.collection("discount")
        self._codes = world.store.collection("promotion_code", "code", "customer")

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/coupons", self.create),
            Operation("GET", "/v1/coupons", self.browse),
            Operation("GET", "/v1/coupons/{coupon}", self.retrieve),
            Operation("POST", "/v1/coupons/{coupon}", self.update),
            Operation("DELETE", "/v1/coupons/{coupon}", self.delete),
            Operation("POST", "/v1/promotion_codes", self.create_code),
            Operation("GET", "/v1/promotion_codes", self.list_codes),
            Operation("GET", "/v1/promotion_codes/{promotion_code}", self.retrieve_code),
            Operation("POST", "/v1/promotion_codes/{promotion_code}", self.update_code),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        identifier, name = given.text("id"), given.text("name")
        amount, percent = given.integer("amount_off", 1), given.number("percent_off", 100)
        currency = given.currency() if amount else given.text("currency")
        duration = given.choice("duration", DURATIONS, "once")
        months = given.integer("duration_in_months", 1, MONTHS_MAX)
        redemptions, redeem_by = self._limits(given, "redeem_by")
        metadata = given.metadata()
        given.finish()
        if (amount is None) == (percent is None):
            raise bad_parameter("You must pass either percent_off or amount_off.", "percent_off")
        if (duration == "repeating") != (months is not None):
            raise bad_parameter(
                "duration_in_months must be set if, and only if, duration is repeating.",
                "duration_in_months",
            )
        if identifier and self._world.store.find(identifier):
            raise invalid("Coupon already exists.", code="resource_already_exists")
        coupon: Json = {
            "id": identifier or new_id("", 8)[1:],
            "object": "coupon",
            "amount_off": amount,
            "created": self._world.wall.now(),
            "currency": currency if amount else None,
            "duration": duration,
            "duration_in_months": months,
            "livemode": False,
            "max_redemptions": redemptions,
            "metadata": metadata,
            "name": name,
            "percent_off": float(percent) if percent else None,
            "redeem_by": redeem_by,
            "times_redeemed": 0,
            "valid": True,
        }
        self._world.store.add(coupon)
        self._world.events.emit("coupon.created", coupon)
        return coupon

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._refreshed(self._world.store.get("coupon", call.path["coupon"]))

    def update(self, call: Call) -> Json:
        coupon = self._world.store.get("coupon", call.path["coupon"])
        given = call.parameters
        metadata, name = given.metadata(coupon["metadata"]), given.text("name", coupon["name"])
        given.finish()
        coupon.update(metadata=metadata, name=name)
        self._world.events.emit("coupon.updated", coupon)
        return self._refreshed(coupon)

    def delete(self, call: Call) -> Json:
        coupon = self._world.store.get("coupon", call.path["coupon"])
        call.parameters.finish()
        for code in self._codes:
            if code["promotion"]["coupon"] == coupon["id"]:
                code["active"] = False
        self._world.store.remove(coupon)
        self._world.events.emit("coupon.deleted", coupon)
        return {"id": coupon["id"], "object": "coupon", "deleted": True}

    def browse(self, call: Call) -> Json:
        keep = by_created(call.parameters)
        return self._coupons.page(call.parameters, call.url, lambda row: keep(self._refreshed(row)))

    def create_code(self, call: Call) -> Json:
        given = call.parameters
        promotion = given.child("promotion")
        promotion.choice("type", ("coupon",))
        coupon = self._world.store.get("coupon", promotion.required("coupon"), "promotion[coupon]")
        code = given.text("code") or new_id("", 8)[1:].upper()
        customer = given.text("customer")
        if customer:
            self._world.store.get("customer", customer, "customer")
        redemptions, expires_at = self._limits(given, "expires_at")
        restrictions = given.child("restrictions")
        first_time = restrictions.flag("first_time_transaction")
        minimum = restrictions.integer("minimum_amount", 1)
        minimum_currency = restrictions.text("minimum_amount_currency")
        is_active, metadata = given.flag("active", True), given.metadata()
        given.finish()
        for other in self._codes:
            if other["active"] and other["code"].lower() == code.lower():
                raise bad_parameter(
                    f"An active promotion code with `code: {code}` already exists.", "code"
                )
        row: Json = {
            "id": new_id("promo"),
            "object": "promotion_code",
            "active": is_active,
            "code": code,
            "created": self._world.wall.now(),
            "customer": customer,
            "customer_account": None,
            "expires_at": expires_at,
            "livemode": False,
            "max_redemptions": redemptions,
            "metadata": metadata,
            "promotion": {"coupon": coupon["id"], "type": "coupon"},
            "restrictions": {
                "first_time_transaction": first_time,
                "minimum_amount": minimum,
                "minimum_amount_currency": minimum_currency,
            },
            "times_redeemed": 0,
        }
        self._world.store.add(row)
        self._world.events.emit("promotion_code.created", row)
        return row

    def retrieve_code(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("promotion_code", call.path["promotion_code"])

    def update_code(self, call: Call) -> Json:
        row = self._world.store.get("promotion_code", call.path["promotion_code"])
        given = call.parameters
        metadata, is_active = given.metadata(row["metadata"]), given.flag("active", row["active"])
        given.finish()
        row.update(metadata=metadata, active=is_active)
        self._world.events.emit("promotion_code.updated", row)
        return row

    def list_codes(self, call: Call) -> Json:
        given = call.parameters
        active = given.choice("active", ("true", "false"))
        code, customer, coupon = given.text("code"), given.text("customer"), given.text("coupon")
        created = by_created(given)

        def keep(row: Json) -> bool:
            return (
                active in (None, str(row["active"]).lower())
                and coupon in (None, row["promotion"]["coupon"])
                and created(row)
            )

        return self._codes.page(given, call.url, keep, code=code, customer=customer)

    def find_code(self, typed: str, customer: str | None, subtotal: int) -> Json:
        """Return the promotion code that a customer typed; raises Problem if it may not be used."""
        for row in self._codes:
            if row["code"].lower() == typed.strip().lower() and row["active"]:
                self.require_code(row, customer, subtotal)
                return row
        raise invalid("This code is invalid.", "promotion_code")

    def require_code(self, row: Json, customer: str | None, subtotal: int) -> None:
        """Raises Problem if a promotion code may not be used for this purchase."""
        expires, most = row["expires_at"], row["max_redemptions"]
        restrictions = row["restrictions"]
        is_over = (
            not row["active"]
            or (expires is not None and expires <= self._world.wall.now())
            or (most is not None and row["times_redeemed"] >= most)
        )
        if is_over or row["customer"] not in (None, customer):
            raise invalid("This code is invalid.", "promotion_code")
        if subtotal < (restrictions["minimum_amount"] or 0):
            raise invalid("This code needs a larger purchase.", "promotion_code")
        has_paid = customer is not None and any(
            charge["paid"] for charge in self._world.store.of("charge").where(customer=customer)
        )
        if restrictions["first_time_transaction"] and has_paid:
            raise invalid("This code is for a first purchase.", "promotion_code")
        self.require_coupon(row["promotion"]["coupon"])

    def require_coupon(self, identifier: str) -> Json:
        """Return a coupon that may be redeemed now; raises Problem for any other."""
        coupon = self._refreshed(self._world.store.get("coupon", identifier, "coupon"))
        if not coupon["valid"]:
            raise invalid(f"Coupon {identifier} is used up or has expired.", "coupon")
        return coupon

    def redeem(self, discount: Json) -> None:
        """Count a redemption of a discount: `{coupon, promotion_code}`."""
        coupon = self._world.store.find(discount["coupon"])
        if coupon:
            coupon["times_redeemed"] += 1
        code = discount["promotion_code"] and self._world.store.find(discount["promotion_code"])
        if code:
            code["times_redeemed"] += 1
            if code["max_redemptions"] and code["times_redeemed"] >= code["max_redemptions"]:
                code["active"] = False

    def amount_off(self, identifier: str, subtotal: int) -> int:
        """Return the cents that a coupon takes off; half a cent rounds up."""
        coupon = self._world.store.get("coupon", identifier, "coupon")
        if coupon["amount_off"] is not None:
            return min(subtotal, int(coupon["amount_off"]))
        off = subtotal * Decimal(str(coupon["percent_off"])) / 100
        return int(off.quantize(Decimal(1), ROUND_HALF_UP))

    def discount_of(self, chosen: Json, **place: str | None) -> Json:
        """Return the discount object of `{coupon, promotion_code}` at a session or subscription."""
        discount: Json = {
            "id": new_id("di"),
            "object": "discount",
            "checkout_session": None,
            "customer": None,
            "customer_account": None,
            "end": None,
            "invoice": None,
            "invoice_item": None,
            "promotion_code": chosen["promotion_code"],
            "source": {"coupon": chosen["coupon"], "type": "coupon"},
            "start": self._world.wall.now(),
            "subscription": None,
            "subscription_item": None,
            **place,
        }
        return self._world.store.add(discount)

    def _refreshed(self, coupon: Json) -> Json:
        most, until = coupon["max_redemptions"], coupon["redeem_by"]
        coupon["valid"] = (most is None or coupon["times_redeemed"] < most) and (
            until is None or until > self._world.wall.now()
        )
        return coupon

    def _limits(self, given: Parameters, time_name: str) -> tuple[int | None, int | None]:
        until = given.integer(time_name, self._world.wall.now() + 1, 1 << 40)
        return given.integer("max_redemptions", 1), until
