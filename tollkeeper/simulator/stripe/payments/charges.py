"""Charges: one attempt to take money from a payment method."""

from typing import Final

from tollkeeper.simulator.stripe.books import Movement
from tollkeeper.simulator.stripe.cards import Decline
from tollkeeper.simulator.stripe.payments.balance import Balance, charge_fee
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json
from tollkeeper.simulator.stripe.world import Call, Operation, World

CARD_MEMBERS: Final = (
    *("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4"),
    "regulated_status",
)


class Charges:
    """Makes charges on behalf of PaymentIntents, and lists them."""

    def __init__(self, world: World, balance: Balance, methods: PaymentMethods) -> None:
        self._world = world
        self._balance = balance
        self._methods = methods
        self._all = world.store.collection("charge", "customer", "payment_intent")
        world.includable["charge", "refunds"] = self._refunds_of

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", "/v1/charges", self.browse),
            Operation("GET", "/v1/charges/{charge}", self.retrieve),
            Operation("POST", "/v1/charges/{charge}", self.update),
        ]

    def begin(self, intent: Json, method: Json) -> Json:
        """Make a charge of which the end is still open."""
        charge = self._make(intent, method)
        if self._methods.card_of(method).is_bank:
            self._world.events.emit("charge.pending", charge)
        return charge

    def succeed(
        self, charge: Json, method: Json, *, tax: int, invoice: str | None, is_async: bool
    ) -> None:
        """Take the money. `tax` is the part of the amount that is tax, in cents.

        With `is_async` the balance follows a moment later, and `charge.updated` tells of it.
        """
        charge.update(
            amount_captured=charge["amount"],
            captured=True,
            outcome=_outcome(None),
            paid=True,
            receipt_url=f"{self._world.base_url}/receipts/{charge['id']}",
            status="succeeded",
        )
        card = self._methods.card_of(method)
        now = self._world.wall.now()

        def capture() -> None:
            charge["balance_transaction"] = self._balance.add(
                "charge",
                "charge",
                charge,
                charge["amount"],
                fee=charge_fee(charge["amount"]),
                description=charge["description"],
                is_available=card.skips_pending,
            )["id"]

        def capture_later() -> None:
            capture()
            self._world.events.emit("charge.updated", charge, {"balance_transaction": None})

        if is_async:
            self._world.wall.at(now, capture_later)
        else:
            capture()
        self._world.books.record(
            Movement.PAID, now, charge["id"], charge["amount"], charge, tax, invoice
        )
        self._world.events.emit("charge.succeeded", charge)

    def fail(self, charge: Json, decline: Decline) -> None:
        """Note that the bank refused."""
        charge.update(
            failure_code=decline.code,
            failure_message=decline.message,
            outcome=_outcome(decline),
            status="failed",
        )
        self._world.events.emit("charge.failed", charge)

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("charge", call.path["charge"])

    def update(self, call: Call) -> Json:
        charge = self._world.store.get("charge", call.path["charge"])
        given = call.parameters
        metadata = given.metadata(charge["metadata"])
        description = given.text("description", charge["description"])
        given.finish()
        charge.update(metadata=metadata, description=description)
        self._world.events.emit("charge.updated", charge)
        return charge

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, intent = given.text("customer"), given.text("payment_intent")
        keep = by_created(given)
        return self._all.page(given, call.url, keep, customer=customer, payment_intent=intent)

    def _make(self, intent: Json, method: Json) -> Json:
        charge: Json = {
            "id": new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": 0,
            "amount_refunded": 0,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": None,
            "billing_details": method["billing_details"],
            "calculated_statement_descriptor": "TOLLKEEPER",
            "captured": False,
            "created": self._world.wall.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_balance_transaction": None,
            "failure_code": None,
            "failure_message": None,
            "fraud_details": {},
            "livemode": False,
            "metadata": dict(intent["metadata"]),
            "on_behalf_of": None,
            "outcome": _outcome(None),
            "paid": False,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "payment_method_details": _details(method, intent["amount"]),
            "receipt_email": intent["receipt_email"],
            "receipt_number": None,
            "receipt_url": None,
            "refunded": False,
            "review": None,
            "shipping": None,
            "source_transfer": None,
            "statement_descriptor": intent["statement_descriptor"],
            "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
            "status": "pending",
            "transfer_data": None,
            "transfer_group": None,
        }
        return self._world.store.add(charge)

    def _refunds_of(self, charge: Json) -> Json:
        return {
            "object": "list",
            "url": f"/v1/charges/{charge['id']}/refunds",
            "has_more": False,
            "data": self._world.store.of("refund").where(charge=charge["id"])[::-1],
        }


def _outcome(decline: Decline | None) -> Json:
    return {
        "advice_code": decline.advice_code if decline else None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if decline else "approved_by_network",
        "reason": (decline.decline_code or decline.code) if decline else None,
        "risk_level": "normal",
        "risk_score": 12,
        "seller_message": "The bank did not return any further details with this decline."
        if decline
        else "Payment complete.",
        "type": "issuer_declined" if decline else "authorized",
    }


def _details(method: Json, amount: int) -> Json:
    """Return the account that a charge is for, as the charge shows it."""
    if method["type"] == "us_bank_account":
        bank = method["us_bank_account"]
        names = ("account_holder_type", "account_type", "bank_name", "fingerprint", "last4")
        shown = {name: bank[name] for name in (*names, "routing_number")}
        return {"type": "us_bank_account", "us_bank_account": {**shown, "payment_reference": None}}
    card = method["card"]
    return {
        "card": {
            **{name: card[name] for name in CARD_MEMBERS},
            "amount_authorized": amount,
            "authorization_code": None,
            "extended_authorization": {"status": "disabled"},
            "incremental_authorization": {"status": "unavailable"},
            "installments": None,
            "mandate": None,
            "multicapture": {"status": "unavailable"},
            "network": card["brand"],
            "network_token": {"used": False},
            "network_transaction_id": new_id("", 14)[1:],
            "overcapture": {"maximum_amount_capturable": 0, "status": "unavailable"},
            "three_d_secure": None,
            "wallet": None,
        },
        "type": "card",
    }
