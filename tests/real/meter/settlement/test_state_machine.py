"""The same steps on the books in memory and on a real Postgres: equal to the last pico-dollar."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from meter.errors import Conflict
from meter.holds.hold import HoldAnswer, HoldEnding, HoldRequest, HoldState
from meter.holds.sweep_store import SweepStore
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import Posting
from meter.lookups.pending import ReportedGeneration
from meter.lookups.queue import LookupQueue
from meter.process.crash_points import NoCrashPoints
from meter.settlement.look_up_terms import LookupTerms
from meter.settlement.policy import PolicyDecision
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Observation
from tests.books import MODEL, Books, Payer
from tests.laws.state_machine.memory import MemoryBooks
from tests.laws.state_machine.simulation import ACCOUNTS, Simulation

STEPS = 800
Row = tuple[Any, ...]
Step = Callable[["OnPostgres"], Awaitable[None]]


class OnPostgres:
    """Takes the steps that were taken in memory; each must answer the same."""

    def __init__(self, books: Books, payers: dict[str, Payer]) -> None:
        self._books = books
        self._payers = payers
        self._settlements = PostgresSettlementStore(books.pool)
        self._ledger = LedgerStore(books.pool)
        self._lookups = LookupQueue(books.pool, LookupTerms(), "openrouter")
        self._sweeping = SweepStore(books.pool, timedelta(minutes=15), NoCrashPoints())

    async def place(self, request: HoldRequest, expected: HoldAnswer) -> None:
        ours = replace(
            request,
            credential_id=self._payers[request.account_id].credential_id,
            model_id=MODEL,
            estimate=replace(request.estimate, price_id=self._books.price_id),
        )
        assert await self._books.holds.place(ours) == expected

    async def release(self, hold_ids: Sequence[UUID], expected: int) -> None:
        assert await self._books.holds.release(hold_ids) == expected

    async def expire(self, overdue: list[UUID], expected: int) -> None:
        late = "UPDATE holds SET expires_at = clock_timestamp() WHERE id = ANY ($1)"
        await self._books.pool.execute(late, overdue)
        assert await self._sweeping.expire() == expected

    async def settle(self, observations: Sequence[Observation]) -> None:
        await self._settlements.settle(observations)

    async def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> None:
        await self._settlements.end_by_policy(decisions)

    async def note(self, report: ReportedGeneration) -> None:
        await self._lookups.note([report])

    async def forget(self, hold_id: UUID) -> None:
        known = "SELECT generation_id FROM lookups WHERE hold_id = $1"
        await self._lookups.forget(hold_id, await self._books.pool.fetchval(known, hold_id))

    async def mark_decided(self, hold_id: UUID) -> None:
        await self._lookups.postpone(hold_id, timedelta(hours=1), is_decided=True)

    async def watch(self, hold_id: UUID) -> None:
        await self._lookups.watch(hold_id, timedelta(hours=1), is_settled=True)

    async def post(self, posting: Posting, expected: int | type[Conflict]) -> None:
        answer: int | type[Conflict]
        try:
            answer = (await self._ledger.post_credit(posting)).balance_after_picos
        except Conflict as error:
            answer = type(error)
        assert answer == expected


class Noting(MemoryBooks):
    """Books in memory that write down what is asked of them, and what they answer."""

    script: list[Step]

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.script = []

    def place(self, requests: Sequence[HoldRequest]) -> list[HoldAnswer]:
        answers = super().place(requests)
        for request, answer in zip(requests, answers, strict=True):
            self.script.append(partial(OnPostgres.place, request=request, expected=answer))
        return answers

    def release(self, hold_ids: Sequence[UUID], reason: HoldEnding) -> int:
        released = super().release(hold_ids, reason)
        self.script.append(lambda real: real.release(hold_ids, released))
        return released

    def expire(self) -> int:
        overdue = [
            live.hold.id
            for live in self.holds.values()
            if live.hold.state is HoldState.OPEN and live.expires_at <= self.now
        ]
        expired = super().expire()
        self.script.append(lambda real: real.expire(overdue, expired))
        return expired

    def write_off_debt(self, account_id: str) -> None:
        before = len(self.journal)
        super().write_off_debt(account_id)
        for posting in self.journal[before:]:
            self.script.append(partial(OnPostgres.post, posting=posting, expected=0))

    def settle(self, observations: Sequence[Observation]) -> None:
        super().settle(observations)
        self.script.append(lambda real: real.settle(observations))

    def end_by_policy(self, decisions: Sequence[PolicyDecision]) -> None:
        super().end_by_policy(decisions)
        self.script.append(lambda real: real.end_by_policy(decisions))

    def note(self, hold_id: UUID, generation_id: str, cost_picos: int) -> None:
        super().note(hold_id, generation_id, cost_picos)
        report = ReportedGeneration(hold_id, generation_id, cost_picos)
        self.script.append(lambda real: real.note(report))

    def forget_lookup(self, hold_id: UUID) -> None:
        super().forget_lookup(hold_id)
        self.script.append(lambda real: real.forget(hold_id))

    def mark_decided(self, hold_id: UUID) -> None:
        super().mark_decided(hold_id)
        self.script.append(lambda real: real.mark_decided(hold_id))

    def watch(self, hold_id: UUID) -> None:
        super().watch(hold_id)
        self.script.append(lambda real: real.watch(hold_id))

    def post_credit(self, posting: Posting) -> int:
        answer: int | type[Conflict]
        try:
            answer = super().post_credit(posting)
        except Conflict as error:
            refused = type(error)
            self.script.append(lambda real: real.post(posting, refused))
            raise
        self.script.append(lambda real: real.post(posting, answer))
        return answer


def in_memory(books: MemoryBooks) -> dict[str, list[Row]]:
    """Everything about money, without times."""
    ended = {one: (row.hold.state.value, row.reason.value) for one, row in books.ended.items()}
    live = {one: (row.hold.state.value, None) for one, row in books.holds.items()}
    return {
        "accounts": sorted(
            (name, row.balance_picos, row.held_picos, row.overdrawn_picos)
            for name, row in books.accounts.items()
        ),
        "holds": sorted((one, *row) for one, row in (ended | live).items()),
        "usage": sorted(
            (
                one,
                row.revision,
                row.kind.value,
                row.observation.source.value,
                row.tokens.prompt,
                row.tokens.completion,
                row.cost_picos,
                row.charge_picos,
                row.excess_picos,
                row.own_key_cost_picos,
            )
            for one, rows in books.records.items()
            for row in rows
        ),
        "entries": [
            (
                row.id,
                row.template.value,
                row.account_id,
                row.hold_id,
                row.reason,
                entry.ledger_account.value,
                entry.amount_picos,
            )
            # The postings of one batch have no order: ordinary endings are settled before others.
            for row in sorted(books.journal, key=lambda posting: posting.id)
            for entry in row.entries
        ],
        "conflicts": list(books.conflicts.values()),
        "lookups": sorted(
            (one, row.generation_id or "", row.is_decided, row.seen is not None)
            for one, row in books.lookups.items()
        ),
    }


_QUERIES = {
    "accounts": "SELECT id, balance_picos, held_picos, overdrawn_picos FROM accounts ORDER BY 1",
    "holds": "SELECT id, state, NULL AS reason FROM holds"
    " UNION ALL SELECT id, state, reason FROM ended_holds ORDER BY 1",
    "usage": "SELECT hold_id, revision, kind, source, prompt_tokens, completion_tokens,"
    " provider_cost_picos, charge_picos, excess_picos, own_key_cost_picos FROM usage_records"
    " ORDER BY 1, 2",
    "entries": "SELECT p.id, p.template, p.account_id, p.hold_id, p.reason, e.ledger_account,"
    " e.amount_picos FROM postings p JOIN entries e ON e.posting_id = p.id ORDER BY p.id, e.line",
    "conflicts": "SELECT hold_id, kind FROM settlement_conflicts ORDER BY id",
    "lookups": "SELECT hold_id, coalesce(generation_id, ''), is_decided, observed IS NOT NULL"
    " FROM lookups ORDER BY 1",
}


async def on_postgres(books: Books) -> dict[str, list[Row]]:
    return {
        name: [tuple(row) for row in await books.pool.fetch(query)]
        for name, query in _QUERIES.items()
    }


@pytest.mark.parametrize("seed", [0, 1])
async def test_memory_and_postgres_keep_the_same_books(books: Books, seed: int) -> None:
    # Payments have rows of their own in Postgres: `tests/real/meter/payments` has them.
    simulation = Simulation(seed, may_crash=False, make_books=Noting, sells=False)
    assert isinstance(simulation.books, Noting)
    payers = {name: await books.payer(name, 0) for name in ACCOUNTS}
    real = OnPostgres(books, payers)
    for _ in range(STEPS):
        simulation.step()
    for number, step in enumerate(simulation.books.script):
        try:
            await step(real)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, operation {number}: {error}") from error
    expected, found = in_memory(simulation.books), await on_postgres(books)
    for name in expected:
        assert found[name] == expected[name], f"seed {seed}: {name}"
    assert len(expected["usage"]) > STEPS // 20
    verification = await books.verified()
    assert verification.is_ok, verification.failures
    assert verification.totals.provider_cost_picos == sum(row[6] for row in expected["usage"])
    assert verification.totals.postings == len(simulation.books.journal)
