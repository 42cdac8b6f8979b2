"""The simulator's own books: every cent that moved, by customer and by cause."""

import itertools
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from enum import StrEnum

from tollkeeper.simulator.stripe.wire.problem import Json


class Movement(StrEnum):
    """The causes of a movement of money; amounts are never negative."""

    PAID = "paid"
    REFUNDED = "refunded"
    REFUND_FAILED = "refund_failed"
    DISPUTE_WITHDRAWN = "dispute_withdrawn"
    DISPUTE_REINSTATED = "dispute_reinstated"


@dataclass(frozen=True, slots=True)
class BookRow:
    """One movement. `tax` is the part of a payment that is tax; amounts in cents."""

    number: int
    at: int
    movement: Movement
    customer: str | None
    payment_intent: str | None
    object: str
    currency: str
    amount: int
    tax: int
    invoice: str | None
    metadata: dict[str, str]


class Books:
    """Rows in the order of their happening, and sums by customer."""

    def __init__(self) -> None:
        self._rows: list[BookRow] = []
        self._counts: Counter[Movement] = Counter()
        self._sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def record(
        self,
        movement: Movement,
        at: int,
        identifier: str,
        amount: int,
        charge: Json,
        tax: int = 0,
        invoice: str | None = None,
    ) -> None:
        """Note that money of a charge moved; `identifier` is the charge, refund or dispute."""
        row = BookRow(
            len(self._rows) + 1,
            at,
            movement,
            charge["customer"],
            charge["payment_intent"],
            identifier,
            charge["currency"],
            amount,
            tax,
            invoice,
            dict(charge["metadata"]),
        )
        self._rows.append(row)
        self._counts[movement] += 1
        sums = self._sums[row.customer or ""]
        sums[movement] += amount
        sums["tax"] += tax

    def count(self, movement: Movement) -> int:
        """Return how many movements there were for this cause."""
        return self._counts[movement]

    def rows(self, after: int, limit: int) -> list[Json]:
        """Return rows with numbers above `after`, in their order."""
        return [asdict(row) for row in itertools.islice(self._rows, after, after + limit)]

    def sums(self) -> dict[str, dict[str, int]]:
        """Return the sums of each customer in cents; payments without a customer are under ``."""
        names = [*Movement, "tax"]
        return {
            customer: {str(name): sums.get(name, 0) for name in names}
            for customer, sums in self._sums.items()
        }
