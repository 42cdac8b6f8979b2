"""A plain model of credit that expires, and a world that takes the same steps on the real books.

The books have the clock of the database. Time passes here by moving the instants of lots and of
live holds into the past, so no test waits, and none depends on the speed of the machine: one moves
by hours, and instants of expiry lie between full hours.
"""

import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from meter.clock import SystemClock
from meter.holds.hold import HoldPlaced
from meter.ledger.credit import InsufficientAvailable
from meter.ledger.credit_store import LedgerStore
from meter.ledger.lots import LotStore
from meter.ledger.postings import Posting, credit, payment, payment_reversal
from meter.postgres.pool import PostgresConnection
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import USD, Books, Payer, observed

CENT: Final = USD // 100
# Far from full hours, at which everything else happens.
HALF_AN_HOUR: Final = 0.5
AGE: Final = (
    "UPDATE credit_lots SET granted_at = granted_at - $1::interval,"
    " expires_at = expires_at - $1::interval",
    "UPDATE accounts SET next_expiry = next_expiry - $1::interval WHERE next_expiry IS NOT NULL",
    "UPDATE holds SET created_at = created_at - $1::interval",
)


async def pass_time(owner: PostgresConnection, hours: float) -> None:
    """Let hours pass for lots and live holds. What ended keeps its instants."""
    for statement in AGE:
        await owner.execute(statement, timedelta(hours=hours))


@dataclass
class ModelLot:
    amount: int
    left: int
    granted: float
    expires: float
    expired: int = 0

    @property
    def spent(self) -> int:
        return self.amount - self.left - self.expired


@dataclass
class ModelHold:
    amount: int
    placed: float
    has_lots: bool


@dataclass
class Account:
    """The rules of lots, written down as plainly as they are said.

    Instants are hours; now is about 0, and the past is negative.
    """

    balance: int = 0
    lots: dict[uuid.UUID, ModelLot] = field(default_factory=dict)
    holds: dict[uuid.UUID, ModelHold] = field(default_factory=dict)

    def open_lots(self) -> list[ModelLot]:
        return sorted((lot for lot in self.lots.values() if lot.left), key=lambda lot: lot.expires)

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds.values())

    def expirable(self, lot: ModelLot) -> int:
        """Return the part of a lot that has expired and that no earlier hold may use."""
        if lot.expires > 0:
            return 0
        kept = 0
        for other in self.open_lots():
            may_use = sum(
                hold.amount
                for hold in self.holds.values()
                if hold.has_lots and hold.placed < other.expires
            )
            keeps = min(other.left, max(0, may_use - kept))
            if other is lot:
                return other.left - keeps
            kept += keeps
        return 0

    @property
    def available(self) -> int:
        expired = sum(self.expirable(lot) for lot in self.open_lots())
        return self.balance - self.held - expired

    def give(
        self, posting_id: uuid.UUID, amount: int, granted: float, expires: float | None = None
    ) -> None:
        self.balance += amount
        if expires is not None:
            others = sum(lot.left for lot in self.lots.values())
            left = min(amount, max(0, self.balance) - others)
            self.lots[posting_id] = ModelLot(amount, left, granted, expires)

    def charge(self, amount: int, placed: float) -> None:
        self.balance -= amount
        for lot in self.open_lots():
            if lot.expires > placed:
                taken = min(amount, lot.left)
                lot.left -= taken
                amount -= taken
        self.pay_debt()

    def pay_debt(self) -> None:
        """Credit that never expires is not below zero while a lot has something left."""
        surplus = sum(lot.left for lot in self.lots.values()) - max(0, self.balance)
        for lot in self.open_lots():
            taken = max(0, min(surplus, lot.left))
            lot.left -= taken
            surplus -= taken

    def refund(self, amount: int, placed: float) -> None:
        self.balance += amount
        if not self.open_lots():
            return
        amount = min(amount, max(0, self.balance) - sum(lot.left for lot in self.lots.values()))
        for lot in sorted(self.lots.values(), key=lambda lot: lot.expires, reverse=True):
            if lot.expires > 0 and lot.granted <= placed:
                given = max(0, min(amount, lot.spent))
                lot.left += given
                amount -= given

    def expire(self) -> None:
        free = max(0, self.balance - self.held)
        due = [(lot, self.expirable(lot)) for lot in self.open_lots()]
        for lot, amount in due:
            taken = min(amount, free)
            lot.left -= taken
            lot.expired += taken
            self.balance -= taken
            free -= taken
        self.pay_debt()

    def pass_time(self, hours: float) -> None:
        for lot in self.lots.values():
            lot.granted -= hours
            lot.expires -= hours
        for hold in self.holds.values():
            hold.placed -= hours


class LotWorld:
    """One account that takes random steps in the books and in the model, compared after each."""

    def __init__(
        self, books: Books, owner: PostgresConnection, payer: Payer, chance: random.Random
    ) -> None:
        self._books = books
        self._owner = owner
        self._payer = payer
        self._chance = chance
        self._ledger = LedgerStore(books.pool)
        self._lots = LotStore(books.pool)
        self._settlements = PostgresSettlementStore(books.pool)
        self._model = Account()
        self._paid: list[tuple[str, int]] = []
        # What ended, as the books have it: its charge, and when its hold was placed.
        self._ended: dict[uuid.UUID, tuple[int, float]] = {}
        self._steps = 0

    async def step(self) -> None:
        """Take one step, and compare."""
        self._steps += 1
        kinds = {
            self._give: 3,
            self._give_for_ever: 1,
            self._take_back: 1,
            self._pay: 1,
            self._reverse: 1,
            self._hold: 6,
            self._settle: 5,
            self._release: 1,
            self._correct: 2,
            self._pass_time: 3,
            self._expire: 2,
        }
        (act,) = self._chance.choices(list(kinds), list(kinds.values()))
        await act()
        await self.compare(act.__name__)

    async def compare(self, act: str) -> None:
        """Compare balance, holds and each lot with the model."""
        model, account_id = self._model, self._payer.account_id
        balance, held, _ = await self._books.funds(account_id)
        rows = await self._books.pool.fetch(
            "SELECT id, remaining_picos, expired_picos FROM credit_lots WHERE account_id = $1",
            account_id,
        )
        lots = {row["id"]: (row["remaining_picos"], row["expired_picos"]) for row in rows}
        wanted = {one: (lot.left, lot.expired) for one, lot in model.lots.items()}
        found = (balance, held, lots)
        assert found == (model.balance, model.held, wanted), f"step {self._steps}, {act}"
        available = await self._books.holds.find_available(account_id)
        assert available == model.available, f"step {self._steps}, {act}"

    @property
    def _now(self) -> float:
        """Hours; each step is a little later than the one before."""
        return self._steps / 1e6

    def _amount(self, most: int = 300) -> int:
        return self._chance.randint(1, most) * CENT

    async def _post(self, posting: Posting) -> bool:
        try:
            await self._ledger.post_credit(posting)
        except InsufficientAvailable:
            return False
        return True

    async def _give(self) -> None:
        amount = self._amount()
        hours = self._chance.randint(0, 8) + HALF_AN_HOUR
        expires_at = datetime.now(UTC) + timedelta(hours=hours)
        posting = credit(
            self._payer.account_id, f"give-{self._steps}", amount, "a grant", expires_at
        )
        assert await self._post(posting)
        self._model.give(posting.id, amount, self._now, hours)

    async def _give_for_ever(self) -> None:
        posting = credit(self._payer.account_id, f"give-{self._steps}", self._amount(), "a grant")
        assert await self._post(posting)
        self._model.give(posting.id, posting.customer_picos, self._now)

    async def _take_back(self) -> None:
        amount = self._amount()
        posting = credit(self._payer.account_id, f"take-{self._steps}", -amount, "a mistake")
        if await self._post(posting):
            self._model.charge(amount, 0)

    async def _pay(self) -> None:
        posting = payment(
            self._payer.account_id, f"pi_{self._payer.account_id}_{self._steps}", self._amount()
        )
        assert await self._post(posting)
        self._paid.append((posting.reason or "", posting.customer_picos))
        self._model.give(posting.id, posting.customer_picos, self._now)

    async def _reverse(self) -> None:
        if not self._paid:
            return
        paid, amount = self._paid.pop()
        cause = f"re_{self._payer.account_id}_{self._steps}"
        posting = payment_reversal(self._payer.account_id, cause, -amount, f"of {paid}")
        assert await self._post(posting)
        self._model.balance -= amount
        self._model.pay_debt()

    async def _hold(self) -> None:
        amount = self._amount()
        request = self._books.request(self._payer, amount)
        answer = await self._books.holds.place(request)
        is_placed = isinstance(answer, HoldPlaced)
        assert is_placed == (self._model.available >= amount), f"step {self._steps}: {answer}"
        if is_placed:
            has_lots = bool(self._model.open_lots())
            self._model.holds[request.hold_id] = ModelHold(amount, self._now, has_lots)

    async def _settle(self) -> None:
        """Settle some holds at once, now and then above what was held."""
        chosen = self._chance.sample(list(self._model.holds), k=min(len(self._model.holds), 3))
        costs = {}
        for hold_id in chosen:
            most = self._model.holds[hold_id].amount // CENT
            if self._chance.random() < 0.1:
                most *= 2
            costs[hold_id] = self._chance.randint(1, most)
        seen = [observed(one, f"{cost / 100:.2f}") for one, cost in costs.items()]
        await self._settlements.settle(seen)
        # Those within their holds are settled first, and of these the oldest first.
        for is_excess in (False, True):
            batch = [
                one
                for one in chosen
                if (costs[one] * CENT > self._model.holds[one].amount) == is_excess
            ]
            for hold_id in sorted(batch, key=lambda one: self._model.holds[one].placed):
                self._ended[hold_id] = (costs[hold_id], self._model.holds[hold_id].placed)
            for hold_id in sorted(batch, key=lambda one: self._model.holds[one].placed):
                self._model.charge(costs[hold_id] * CENT, self._ended[hold_id][1])
        for hold_id in chosen:
            del self._model.holds[hold_id]

    async def _release(self) -> None:
        if self._model.holds:
            hold_id = self._chance.choice(list(self._model.holds))
            await self._books.holds.release([hold_id])
            del self._model.holds[hold_id]

    async def _correct(self) -> None:
        """The provider's own record says something else than the log."""
        if not self._ended:
            return
        hold_id = self._chance.choice(list(self._ended))
        cost, placed = self._ended.pop(hold_id)
        truth = max(1, cost + self._chance.randint(-100, 40))
        await self._settlements.settle(
            [observed(hold_id, f"{truth / 100:.2f}", source=Source.LOOKUP)]
        )
        if truth > cost:
            self._model.charge((truth - cost) * CENT, placed)
        elif truth < cost:
            self._model.refund((cost - truth) * CENT, placed)

    async def _pass_time(self) -> None:
        hours = self._chance.choice((1, 1, 2, 5))
        await pass_time(self._owner, hours)
        self._model.pass_time(hours)

    async def _expire(self) -> None:
        await self._lots.expire(self._payer.account_id, SystemClock().now())
        self._model.expire()
