"""Refunds: money back to the card, at once, later, or in vain."""

from tollkeeper.simulator.stripe.books import Movement
from tollkeeper.simulator.stripe.cards import TestCard
from tollkeeper.simulator.stripe.payments.balance import Balance
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

REASONS = ("duplicate", "fraudulent", "requested_by_customer")


class Refunds:
    """Makes and lists refunds."""

    def __init__(self, world: World, balance: Balance, methods: PaymentMethods) -> None:
        self._world = world
        self._balance = balance
        self._methods = methods
        self._all = world.store.collection("refund", "charge", "payment_intent")

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/refunds", self.create),
            Operation("GET", "/v1/refunds", self.browse),
            Operation("GET", "/v1/refunds/{refund}", self.retrieve),
            Operation("POST", "/v1/refunds/{refund}", self.update),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        charge = self._charge_of(given)
        amount = given.integer("amount", 1)
        reason, metadata = given.choice("reason", REASONS), given.metadata()
        given.finish()
        left = charge["amount"] - charge["amount_refunded"]
        if charge["status"] != "succeeded":
            raise invalid(f"Charge {charge['id']} was not paid.", code="charge_not_refundable")
        if charge["disputed"] and self._is_charged_back(charge):
            raise invalid(
                f"Charge {charge['id']} has been charged back; cannot issue a refund.",
                code="charge_disputed",
            )
        if left == 0:
            raise invalid(
                f"Charge {charge['id']} has already been refunded.",
                code="charge_already_refunded",
            )
        if amount is not None and amount > left:
            raise invalid(
                f"Refund amount (${amount / 100:.2f}) is greater than unrefunded amount on "
                f"charge (${left / 100:.2f})",
                "amount",
            )
        return self._make(charge, amount or left, reason, metadata)

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("refund", call.path["refund"])

    def update(self, call: Call) -> Json:
        refund = self._world.store.get("refund", call.path["refund"])
        metadata = call.parameters.metadata(refund["metadata"])
        call.parameters.finish()
        refund["metadata"] = metadata
        self._tell_update(refund)
        return refund

    def browse(self, call: Call) -> Json:
        given = call.parameters
        charge, intent = given.text("charge"), given.text("payment_intent")
        keep = by_created(given)
        return self._all.page(given, call.url, keep, charge=charge, payment_intent=intent)

    def _charge_of(self, given: Parameters) -> Json:
        store = self._world.store
        identifier, intent = given.text("charge"), given.text("payment_intent")
        if not identifier and not intent:
            raise bad_parameter(
                "One of the following params should be provided for this request: payment_intent "
                "or charge.",
                None,
            )
        if identifier:
            return store.get("charge", identifier, "charge")
        payment = store.get("payment_intent", intent or "", "payment_intent")
        if payment["status"] != "succeeded":
            raise invalid(
                f"This PaymentIntent ({payment['id']}) does not have a successful charge to "
                "refund.",
                "payment_intent",
            )
        return store.get("charge", payment["latest_charge"])

    def _is_charged_back(self, charge: Json) -> bool:
        disputes = self._world.store.of("dispute").where(charge=charge["id"])
        return any(not dispute["is_charge_refundable"] for dispute in disputes)

    def _make(
        self, charge: Json, amount: int, reason: str | None, metadata: dict[str, str]
    ) -> Json:
        method = self._world.store.get("payment_method", charge["payment_method"])
        card = self._methods.card_of(method)
        now = self._world.wall.now()
        refund: Json = {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "created": now,
            "currency": charge["currency"],
            "destination_details": {
                "card": {
                    "reference_status": "pending",
                    "reference_type": "acquirer_reference_number",
                    "type": "refund",
                },
                "type": "card",
            },
            "metadata": metadata,
            "payment_intent": charge["payment_intent"],
            "reason": reason,
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "pending" if card.refund == "pending" else "succeeded",
            "transfer_reversal": None,
        }
        refund["balance_transaction"] = self._balance.add(
            "refund", "refund", refund, -amount, description="REFUND FOR CHARGE"
        )["id"]
        self._world.store.add(refund)
        self._world.books.record(Movement.REFUNDED, now, refund["id"], amount, charge)
        previous = {name: charge[name] for name in ("amount_refunded", "refunded")}
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self._world.events.emit("refund.created", refund)
        self._world.events.emit("charge.refunded", charge, previous)
        if card.refund != "succeeds":
            self._end_later(refund, charge, card)
        return refund

    def _end_later(self, refund: Json, charge: Json, card: TestCard) -> None:
        def succeed() -> None:
            refund["status"] = "succeeded"
            self._tell_update(refund)

        def fail() -> None:
            refund.update(
                status="failed",
                failure_reason="expired_or_canceled_card",
                failure_balance_transaction=self._balance.add(
                    "refund_failure", "refund_failure", refund, refund["amount"]
                )["id"],
            )
            charge["amount_refunded"] -= refund["amount"]
            charge["refunded"] = False
            self._world.books.record(
                Movement.REFUND_FAILED,
                self._world.wall.now(),
                refund["id"],
                refund["amount"],
                charge,
            )
            self._tell_update(refund)
            self._world.events.emit("refund.failed", refund)

        when = self._world.wall.now() + self._world.settings.settle_seconds
        self._world.wall.at(when, succeed if card.refund == "pending" else fail)

    def _tell_update(self, refund: Json) -> None:
        self._world.events.emit("refund.updated", refund)
        self._world.events.emit("charge.refund.updated", refund)
