"""Looks at the books and at the upstream's bill, past everything that we wrote."""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from chaos.stack import ChaosStack

PICOS_PER_USD = Decimal(10) ** 12
LOOK_EVERY_S = 0.1
CALM_S = 1.0


@dataclass(frozen=True, slots=True)
class BillRow:
    """The upstream's charge for one generation, in pico-dollars."""

    generation_id: str
    prompt_tokens: int
    cost_picos: int


@dataclass(frozen=True, slots=True)
class Usage:
    """One usage record; of a correction the differences."""

    account_id: str
    kind: str
    source: str
    generation_id: str | None
    price_source: str
    cost_picos: int
    charge_picos: int


@dataclass(frozen=True, slots=True)
class Expected:
    """One request of an account of its own, and by what the upstream's row for it is known.

    `is_billed` is None where it depends on a race.
    """

    name: str
    account_id: str
    prompt_tokens: int
    is_billed: bool | None = True


@dataclass(frozen=True, slots=True)
class Auditor:
    """Reads with a superuser's connection, whose statements see what is committed."""

    stack: ChaosStack

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        connection = await asyncpg.connect(self.stack.dsn())
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def usage(self, accounts: Iterable[str]) -> list[Usage]:
        """All usage records of these accounts, oldest first."""
        found = await self.fetch(
            "SELECT account_id, kind, source, generation_id, price_source, provider_cost_picos,"
            " charge_picos FROM usage_records WHERE account_id = ANY ($1)"
            " ORDER BY placed_at, hold_id, revision",
            list(accounts),
        )
        return [Usage(*row) for row in found]

    async def endings(self, accounts: Iterable[str]) -> dict[str, list[str]]:
        """Return the reasons for which the holds of each account ended."""
        found = await self.fetch(
            "SELECT account_id, array_agg(reason ORDER BY ended_at) AS reasons FROM ended_holds"
            " WHERE account_id = ANY ($1) GROUP BY 1",
            list(accounts),
        )
        return {row["account_id"]: row["reasons"] for row in found}

    async def funds(self, accounts: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Balance and held amount of each account."""
        found = await self.fetch(
            "SELECT id, balance_picos, held_picos FROM accounts WHERE id = ANY ($1)",
            list(accounts),
        )
        return {row["id"]: (row["balance_picos"], row["held_picos"]) for row in found}

    async def conflicts(self) -> list[asyncpg.Record]:
        """Arrivals that contradict what is settled."""
        return await self.fetch("SELECT hold_id, kind FROM settlement_conflicts")

    async def wait_ended(self, accounts: Iterable[str], most_s: float) -> dict[str, float]:
        """Wait until no account has had a live hold for a while; return when each was last live.

        Times are of `time.monotonic`. A hold may also be placed after its client left.

        Raises TimeoutError, with the holds that are left, when that takes longer than `most_s`.
        """
        wanted, last_seen = list(accounts), dict[str, float]()
        connection = await asyncpg.connect(self.stack.dsn())
        calm_since = time.monotonic()
        deadline = calm_since + most_s
        try:
            while True:
                left = await connection.fetch(
                    "SELECT h.account_id, h.state, h.unknown_reason, h.generation_id, l.due_at,"
                    " l.attempts FROM holds h LEFT JOIN lookups l ON l.hold_id = h.id"
                    " WHERE h.account_id = ANY ($1)",
                    wanted,
                )
                last_seen |= {row["account_id"]: time.monotonic() for row in left}
                now = time.monotonic()
                calm_since = now if left else calm_since
                if now - calm_since > CALM_S:
                    return last_seen
                if now > deadline:
                    raise TimeoutError(f"live after {most_s} s: {[dict(row) for row in left]}")
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await connection.close()

    async def check_paid(self, expected: Sequence[Expected], credit_picos: int) -> list[Usage]:
        """Each account has paid just what the upstream bills for its request, once.

        Returns the usage records of them all.
        """
        accounts = [one.account_id for one in expected]
        usage, funds = await self.usage(accounts), await self.funds(accounts)
        endings, bill = await self.endings(accounts), self.bill()
        for one in expected:
            rows = [row for row in bill if row.prompt_tokens == one.prompt_tokens]
            mine = [record for record in usage if record.account_id == one.account_id]
            assert len(rows) <= 1, one
            assert one.is_billed in (None, bool(rows)), one
            firsts = [record for record in mine if record.kind != "correction"]
            assert len(firsts) == len(rows), (one, mine)
            cost_picos = sum(record.cost_picos for record in mine)
            assert cost_picos == sum(row.cost_picos for row in rows), (one, mine, rows)
            assert {record.generation_id for record in mine} <= {
                row.generation_id for row in rows
            }, one
            charged_picos = sum(record.charge_picos for record in mine)
            assert funds[one.account_id] == (credit_picos - charged_picos, 0), one
            assert len(endings.get(one.account_id, [])) <= 1, (one, endings)
        assert await self.conflicts() == []
        return usage

    def bill(self) -> list[BillRow]:
        """The whole bill; exact."""
        return [_bill_row(json.loads(line)) for line in self.stack.bill.read_text().splitlines()]


def _bill_row(row: dict[str, Any]) -> BillRow:
    picos = Decimal(row["cost"]) * PICOS_PER_USD
    assert picos == int(picos), row
    return BillRow(row["generation_id"], row["prompt_tokens"], int(picos))
