"""Disputes: the cardholder's bank takes the money of a charge back, or asks about it."""

from typing import Final

from tollkeeper.simulator.stripe.books import Movement
from tollkeeper.simulator.stripe.payments.balance import Balance
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

FEE_CENTS = 1_500
RESPOND_SECONDS = 7 * 24 * 3600
REASONS: Final = (
    *("bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated"),
    *("debit_not_authorized", "duplicate", "fraudulent", "general", "incorrect_account_details"),
    *("insufficient_funds", "noncompliant", "product_not_received", "product_unacceptable"),
    *("subscription_canceled", "unrecognized"),
)
EVIDENCE: Final = (
    *("access_activity_log", "billing_address", "cancellation_policy"),
    *("cancellation_policy_disclosure", "cancellation_rebuttal", "customer_communication"),
    *("customer_email_address", "customer_name", "customer_purchase_ip", "customer_signature"),
    *("duplicate_charge_documentation", "duplicate_charge_explanation", "duplicate_charge_id"),
    *("product_description", "receipt", "refund_policy", "refund_policy_disclosure"),
    *("refund_refusal_explanation", "service_date", "service_documentation", "shipping_address"),
    *("shipping_carrier", "shipping_date", "shipping_documentation"),
    *("shipping_tracking_number", "uncategorized_file", "uncategorized_text"),
)


class Disputes:
    """Opens, contests and closes disputes.

    Evidence decides: `winning_evidence` as `uncategorized_text` wins, `losing_evidence` loses.
    """

    def __init__(self, world: World, balance: Balance) -> None:
        self._world = world
        self._balance = balance
        self._all = world.store.collection("dispute", "charge", "payment_intent")

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", "/v1/disputes", self.browse),
            Operation("GET", "/v1/disputes/{dispute}", self.retrieve),
            Operation("POST", "/v1/disputes/{dispute}", self.update),
            Operation("POST", "/v1/disputes/{dispute}/close", self.close),
        ]

    def open_soon(self, charge: Json, reason: str, *, is_inquiry: bool = False) -> None:
        """Open a dispute a moment after the request that is handled now."""

        def opening() -> None:
            if not charge["refunded"] and not charge["disputed"]:
                self.open(charge, reason, is_inquiry=is_inquiry)

        self._world.wall.at(self._world.wall.now(), opening)

    def open(
        self, charge: Json, reason: str, amount: int | None = None, *, is_inquiry: bool = False
    ) -> Json:
        """Open a dispute over a paid charge, by default over all that was not refunded.

        An inquiry asks first and takes no money. Raises Problem if nothing is left to dispute.
        """
        left = charge["amount"] - charge["amount_refunded"]
        amount = left if amount is None else amount
        if charge["disputed"] or not charge["paid"] or not 0 < amount <= left:
            raise invalid(f"Charge {charge['id']} cannot be disputed.", code="charge_disputed")
        now = self._world.wall.now()
        dispute: Json = {
            "id": new_id("du"),
            "object": "dispute",
            "amount": amount,
            "balance_transactions": [],
            "charge": charge["id"],
            "created": now,
            "currency": charge["currency"],
            "enhanced_eligibility_types": [],
            "evidence": {**dict.fromkeys(EVIDENCE), "enhanced_evidence": {}},
            "evidence_details": {
                "due_by": now + RESPOND_SECONDS,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
            },
            "is_charge_refundable": is_inquiry,
            "livemode": False,
            "metadata": {},
            "payment_intent": charge["payment_intent"],
            "payment_method_details": {
                "card": {
                    "brand": charge["payment_method_details"].get("card", {}).get("brand", "visa"),
                    "case_type": "inquiry" if is_inquiry else "chargeback",
                    "network_reason_code": "10.4",
                },
                "type": "card",
            },
            "reason": reason,
            "status": "warning_needs_response" if is_inquiry else "needs_response",
        }
        charge["disputed"] = True
        self._world.store.add(dispute)
        self._world.events.emit("charge.dispute.created", dispute)
        if not is_inquiry:
            self._move(dispute, -amount, FEE_CENTS, Movement.DISPUTE_WITHDRAWN)
            self._world.events.emit("charge.dispute.funds_withdrawn", dispute)
        return dispute

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("dispute", call.path["dispute"])

    def browse(self, call: Call) -> Json:
        given = call.parameters
        charge, intent = given.text("charge"), given.text("payment_intent")
        keep = by_created(given)
        return self._all.page(given, call.url, keep, charge=charge, payment_intent=intent)

    def update(self, call: Call) -> Json:
        dispute = self._world.store.get("dispute", call.path["dispute"])
        given = call.parameters
        evidence = given.child("evidence")
        texts = {name: evidence.text(name) for name in EVIDENCE if evidence.has(name)}
        metadata, is_final = given.metadata(dispute["metadata"]), given.flag("submit", True)
        given.finish()
        self._require_open(dispute)
        dispute["metadata"] = metadata
        if texts:
            dispute["evidence"].update(texts)
            dispute["evidence_details"]["has_evidence"] = True
        if texts and is_final:
            is_inquiry = dispute["status"].startswith("warning")
            dispute["evidence_details"]["submission_count"] += 1
            dispute["status"] = "warning_under_review" if is_inquiry else "under_review"
            self._world.wall.at(
                self._world.wall.now() + self._world.settings.settle_seconds,
                lambda: self._decide(dispute),
            )
        self._world.events.emit("charge.dispute.updated", dispute)
        return dispute

    def close(self, call: Call) -> Json:
        dispute = self._world.store.get("dispute", call.path["dispute"])
        call.parameters.finish()
        self._require_open(dispute)
        self.end(dispute, is_won=False)
        return dispute

    def end(self, dispute: Json, *, is_won: bool) -> None:
        """Close a dispute; a won one gives the money back."""
        if dispute["status"].startswith("warning"):
            dispute["status"] = "warning_closed"
        else:
            dispute["status"] = "won" if is_won else "lost"
            if is_won:
                self._move(dispute, dispute["amount"], 0, Movement.DISPUTE_REINSTATED)
                self._world.events.emit("charge.dispute.funds_reinstated", dispute)
        self._world.events.emit("charge.dispute.closed", dispute)

    def _decide(self, dispute: Json) -> None:
        if dispute["status"].endswith("under_review"):
            text = dispute["evidence"]["uncategorized_text"] or ""
            self.end(dispute, is_won="winning_evidence" in text)

    def _move(self, dispute: Json, amount: int, fee: int, movement: Movement) -> None:
        charge = self._world.store.get("charge", dispute["charge"])
        category = "dispute" if amount < 0 else "dispute_reversal"
        transaction = self._balance.add(
            "adjustment",
            category,
            dispute,
            amount,
            fee=fee,
            description=f"Chargeback {'withdrawal' if amount < 0 else 'reversal'}",
            is_available=True,
        )
        dispute["balance_transactions"].append(transaction)
        self._world.books.record(
            movement, self._world.wall.now(), dispute["id"], abs(amount), charge
        )

    def _require_open(self, dispute: Json) -> None:
        if not dispute["status"].endswith("needs_response"):
            raise invalid("This dispute is already closed or under review.", code="dispute_closed")
