"""The balance: one transaction for each movement of money."""

from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json
from tollkeeper.simulator.stripe.world import Call, Operation, World

PENDING_SECONDS = 2 * 24 * 3600
#: 2.9 % and 30 cents for each charge; rounded half up.
FEE_PERMILLE = 29
FEE_CENTS = 30


class Balance:
    """Writes and lists balance transactions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all = world.store.collection("balance_transaction", "source", "type")

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", "/v1/balance_transactions", self.browse),
            Operation("GET", "/v1/balance_transactions/{id}", self.retrieve),
        ]

    def add(
        self,
        kind: str,
        reporting_category: str,
        source: Json,
        amount: int,
        *,
        fee: int = 0,
        description: str | None = None,
        is_available: bool = False,
    ) -> Json:
        """Write a transaction: `amount` is below 0 if money leaves, `fee` is kept by Stripe."""
        now = self._world.wall.now()
        available_on = now if is_available else now + PENDING_SECONDS
        fees = [
            {
                "amount": fee,
                "application": None,
                "currency": source["currency"],
                "description": "Stripe processing fees",
                "type": "stripe_fee",
            }
        ]
        transaction: Json = {
            "id": new_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": available_on,
            "balance_type": "payments",
            "created": now,
            "currency": source["currency"],
            "description": description,
            "exchange_rate": None,
            "fee": fee,
            "fee_details": fees if fee else [],
            "net": amount - fee,
            "reporting_category": reporting_category,
            "source": source["id"],
            "status": "available" if is_available else "pending",
            "type": kind,
        }
        if not is_available:
            self._world.wall.at(available_on, lambda: transaction.update(status="available"))
        return self._world.store.add(transaction)

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("balance_transaction", call.path["id"])

    def browse(self, call: Call) -> Json:
        given = call.parameters
        source, kind, currency = given.text("source"), given.text("type"), given.text("currency")
        keep = by_created(given)
        return self._all.page(given, call.url, keep, source=source, type=kind, currency=currency)


def charge_fee(amount: int) -> int:
    """Return what Stripe keeps of a charge, in cents."""
    return (amount * FEE_PERMILLE + 500) // 1_000 + FEE_CENTS
