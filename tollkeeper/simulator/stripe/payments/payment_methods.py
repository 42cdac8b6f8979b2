"""Payment methods: cards by their test tokens, and bank accounts that pay later."""

from typing import Final

from tollkeeper.simulator.stripe.cards import BY_TOKEN, TestCard
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

EXPIRES: Final = (12, 2034)


class PaymentMethods:
    """Makes, attaches and lists payment methods, and knows the behaviour of each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = world.store.collection("payment_method", "customer")
        self._cards: dict[str, TestCard] = {}
        self._set_up: set[str] = set()
        self._used: set[str] = set()

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/payment_methods", self.create),
            Operation("GET", "/v1/payment_methods", self.browse),
            Operation("GET", "/v1/payment_methods/{payment_method}", self.retrieve),
            Operation("POST", "/v1/payment_methods/{payment_method}/attach", self.attach_to),
            Operation("POST", "/v1/payment_methods/{payment_method}/detach", self.detach),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        given.choice("type", ("card",))
        details, metadata = self._billing_details(given), given.metadata()
        card = given.child("card")
        if card.has("number"):
            raise Problem(
                402,
                "card_error",
                "Your card was declined. Sending credit card numbers directly to the Stripe API "
                "is generally unsafe. Use a test token such as tok_visa, or the hosted page.",
                code="card_declined",
                decline_code="test_mode_live_card",
            )
        token = card.required("token")
        given.finish()
        return self.from_card(_card_of(token, card.name_of("token")), details, metadata)

    def from_card(
        self, card: TestCard, details: Json | None = None, metadata: dict[str, str] | None = None
    ) -> Json:
        """Make a payment method that behaves as a test card does."""
        kind = "us_bank_account" if card.is_bank else "card"
        method: Json = {
            "id": new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": details
            or {
                "address": no_address(),
                "email": None,
                "name": None,
                "phone": None,
                "tax_id": None,
            },
            "created": self._world.wall.now(),
            "customer": None,
            "customer_account": None,
            "livemode": False,
            "metadata": metadata or {},
            "type": kind,
            kind: _bank(card) if card.is_bank else _card(card),
        }
        self._cards[method["id"]] = card
        return self._world.store.add(method)

    def get(self, identifier: str, param: str = "payment_method") -> Json:
        """Return a payment method; a token such as pm_card_visa makes a new one each time."""
        if identifier.startswith(("pm_card_", "pm_usBankAccount_")):
            return self.from_card(_card_of(identifier, param))
        return self._world.store.get("payment_method", identifier, param)

    def card_of(self, method: Json) -> TestCard:
        return self._cards[method["id"]]

    def is_set_up(self, method: Json) -> bool:
        """Tell if the holder agreed to later payments without them."""
        return method["id"] in self._set_up

    def mark_set_up(self, method: Json) -> None:
        self._set_up.add(method["id"])

    def mark_used(self, method: Json) -> None:
        if method["customer"] is None:
            self._used.add(method["id"])

    def require_usable(self, method: Json, customer: str | None) -> None:
        """Raises Problem if a customer, or nobody in particular, may not pay with the method."""
        if method["customer"] != customer and method["customer"] is not None:
            if customer is None:
                raise invalid(
                    f"The PaymentMethod you provided ({method['id']}) is attached to a customer, "
                    "so for security purposes you must provide the customer in the request.",
                    "payment_method",
                )
            raise invalid(
                f"The payment method {method['id']} does not belong to the Customer {customer}. "
                "Please use this payment method with the Customer that it belongs to instead.",
                "payment_method",
            )
        if method["customer"] is None and method["id"] in self._used:
            raise invalid(
                "The provided PaymentMethod was previously used with a PaymentIntent without "
                "Customer attachment, or was detached from a Customer. It may not be used again.",
                "payment_method",
            )

    def attach_to(self, call: Call) -> Json:
        given = call.parameters
        customer = self._world.store.get("customer", given.required("customer"), "customer")
        given.finish()
        return self.attach(call.path["payment_method"], customer)

    def attach(self, identifier: str, customer: Json) -> Json:
        """Save a method, or a new one for a token, to a customer.

        Raises Problem(402) for a card that refuses to be saved.
        """
        method = self.get(identifier)
        if method["customer"] == customer["id"]:
            return method
        self.require_usable(method, customer["id"])
        card = self.card_of(method)
        if card.decline and card.is_declined_on_setup:
            raise Problem(
                402,
                "card_error",
                card.decline.message,
                code=card.decline.code,
                decline_code=card.decline.decline_code,
            )
        method["customer"] = customer["id"]
        self._all.reindex(method)
        self._world.events.emit("payment_method.attached", method)
        return method

    def detach(self, call: Call) -> Json:
        method = self._world.store.get("payment_method", call.path["payment_method"])
        call.parameters.finish()
        if method["customer"] is None:
            raise invalid(
                "The payment method you provided is not attached to a customer so detachment is "
                "impossible.",
                "payment_method",
            )
        customer = self._world.store.find(method["customer"])
        if customer and customer["invoice_settings"]["default_payment_method"] == method["id"]:
            customer["invoice_settings"]["default_payment_method"] = None
        previous = {"customer": method["customer"]}
        method["customer"] = None
        self._used.add(method["id"])
        self._world.events.emit("payment_method.detached", method, previous)
        return method

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("payment_method", call.path["payment_method"])

    def browse(self, call: Call) -> Json:
        return self.page(call, call.parameters.text("customer"))

    def page(self, call: Call, customer: str | None) -> Json:
        """Return a page of the methods of a customer, or of all."""
        given = call.parameters
        kind = given.text("type")
        keep = by_created(given)
        return self._all.page(given, call.url, keep, customer=customer, type=kind)

    def _billing_details(self, given: Parameters) -> Json:
        details = given.child("billing_details")
        address = details.address() or no_address()
        texts = {name: details.text(name) for name in ("email", "name", "phone", "tax_id")}
        return {"address": address, **texts}


def no_address() -> Json:
    """Return an address without anything in it."""
    return dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def _card_of(token: str, param: str) -> TestCard:
    card = BY_TOKEN.get(token)
    if card is None:
        raise bad_parameter(f"No such PaymentMethod: '{token}'", param, "resource_missing")
    return card


def _card(card: TestCard) -> Json:
    month, year = EXPIRES
    return {
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": card.brand,
        "exp_month": month,
        "exp_year": year,
        "fingerprint": f"fp{card.number}",
        "funding": card.funding,
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _bank(account: TestCard) -> Json:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": f"fp{account.number}",
        "last4": account.last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }
