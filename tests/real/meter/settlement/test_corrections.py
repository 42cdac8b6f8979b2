"""Arrivals after the ending, on a real Postgres: corrected, posted late, or kept as conflicts."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from meter.errors import RowLocked
from meter.holds.hold import HoldPlaced, HoldRefused, Refusal
from meter.ledger.credit_store import LedgerStore
from meter.ledger.postings import credit
from meter.money import format_usd
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.usage.usage import Source
from tests.books import NEVER_REACHED, USD, Books, Payer, assumed_charge, observed

CENT = USD // 100
GUESS = assumed_charge(USD)
WORKERS = 8
ROUNDS = 12


def decision(hold_id: uuid.UUID, verdict: PolicyVerdict = PolicyVerdict.CHARGE) -> PolicyDecision:
    """The decision of a policy about a request that no log told of."""
    rule = Rule.NO_ENTRY if verdict is PolicyVerdict.CHARGE else Rule.NOT_REPORTED
    return PolicyDecision(hold_id, verdict, rule, None)


async def settle(books: Books, hold_id: uuid.UUID, cost: str, source: Source) -> None:
    await PostgresSettlementStore(books.pool).settle([observed(hold_id, cost, source=source)])


async def is_blocked(books: Books, payer: Payer) -> bool:
    """Return whether the account gets no hold at all, not even one for nothing."""
    answer = await books.holds.place(books.request(payer, 0))
    if isinstance(answer, HoldPlaced):
        await books.holds.release([answer.hold_id])
        return False
    assert isinstance(answer, HoldRefused)
    return answer.reason is Refusal.INSUFFICIENT


@pytest.mark.parametrize("log", [Source.STREAM, Source.FILE])
@pytest.mark.parametrize(("cost", "cents"), [("0.30", 30), ("0.10", 10)])
async def test_the_providers_record_corrects_what_a_log_said(
    books: Books, log: Source, cost: str, cents: int
) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD)
    await settle(books, hold_id, "0.20", log)
    for _ in range(3):
        await settle(books, hold_id, cost, Source.LOOKUP)
    more = (cents - 20) * CENT
    assert await books.funds("alice") == (5 * USD - cents * CENT, 0, 0)
    assert await books.postings(hold_id) == [("settlement", -20 * CENT), ("correction", -more)]
    assert await books.records(hold_id) == [
        (0, "settlement", log.value, 20 * CENT, 0),
        (1, "correction", "lookup", more, max(0, more)),
    ]
    assert await books.conflicts() == []
    assert (await books.verified()).is_ok


async def test_a_correction_carries_the_markup_of_the_hold(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD, markup_bps=5_000)
    await settle(books, hold_id, "0.20", Source.STREAM)
    await settle(books, hold_id, "0.10", Source.LOOKUP)
    assert await books.funds("alice") == (5 * USD - 15 * CENT, 0, 0)
    totals = (await books.verified()).totals
    assert (totals.provider_cost_picos, totals.charge_picos) == (10 * CENT, 15 * CENT)


async def test_a_correction_beyond_the_balance_overdraws_and_blocks(books: Books) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await books.held(payer, USD)
    await settle(books, hold_id, "1", Source.STREAM)
    await settle(books, hold_id, "1.25", Source.LOOKUP)
    assert await books.funds("alice") == (-25 * CENT, 0, 25 * CENT)
    assert await is_blocked(books, payer)
    await LedgerStore(books.pool).post_credit(credit("alice", "k", 25 * CENT, "paid"))
    assert await books.funds("alice") == (0, 0, 0)
    assert not await is_blocked(books, payer)
    assert (await books.verified()).is_ok


async def test_the_same_rank_with_another_amount_is_a_conflict(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD)
    await settle(books, hold_id, "0.20", Source.STREAM)
    await settle(books, hold_id, "0.21", Source.FILE)
    assert await books.funds("alice") == (5 * USD - 20 * CENT, 0, 0)
    assert await books.conflicts() == ["other_amount"]
    await settle(books, hold_id, "0.30", Source.LOOKUP)
    for lower in (Source.STREAM, Source.FILE, Source.LOOKUP):
        await settle(books, hold_id, "0.29", lower)
    assert await books.conflicts() == ["other_amount"] * 4
    assert await books.funds("alice") == (5 * USD - 30 * CENT, 0, 0)
    assert (await books.verified()).is_ok


@pytest.mark.parametrize("source", [Source.STREAM, Source.FILE, Source.LOOKUP])
@pytest.mark.parametrize("charge", [10 * CENT, 150 * CENT, GUESS])
async def test_the_truth_replaces_what_a_policy_charged(
    books: Books, source: Source, charge: int
) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD)
    await PostgresSettlementStore(books.pool).end_by_policy([decision(hold_id)])
    assert await books.state(hold_id) == "settled"
    assert await books.records(hold_id) == [(0, "provisional", "policy", GUESS, 0)]
    assert (await books.verified()).totals.provisional_records == 1
    for _ in range(2):
        await settle(books, hold_id, format_usd(charge), source)
    assert await books.funds("alice") == (5 * USD - charge, 0, 0)
    corrected = [("reversal", GUESS), ("correction", -charge)] if charge != GUESS else []
    assert await books.postings(hold_id) == [("settlement", -GUESS), *corrected]
    more = charge - GUESS
    assert (await books.records(hold_id))[1:] == [
        (1, "correction", source.value, more, max(0, more))
    ]
    assert await books.conflicts() == []
    assert (await books.verified()).is_ok


async def test_a_provisional_charge_is_given_back_when_nothing_was_billed(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.end_by_policy([decision(hold_id)])
    never = observed(hold_id, source=Source.FILE, **NEVER_REACHED)
    for _ in range(2):
        await settlements.settle([never])
    assert await books.funds("alice") == (5 * USD, 0, 0)
    assert await books.postings(hold_id) == [("settlement", -GUESS), ("reversal", GUESS)]
    assert (await books.verified()).is_ok


async def test_a_policy_is_empty_that_ended_before(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    settled, released = await books.held(payer, USD), await books.held(payer, USD)
    await settle(books, settled, "0.20", Source.STREAM)
    await books.holds.release([released])
    settlements = PostgresSettlementStore(books.pool)
    for verdict in PolicyVerdict:
        plan = await settlements.end_by_policy(
            [decision(one, verdict) for one in (settled, released)]
        )
        assert plan.is_empty
    assert await books.funds("alice") == (5 * USD - 20 * CENT, 0, 0)


async def late(books: Books, payer: Payer, ending: str) -> uuid.UUID:
    """A hold that ended without a charge."""
    hold_id = await books.held(payer, USD)
    if ending == "released":
        await books.holds.release([hold_id])
    else:
        void = decision(hold_id, PolicyVerdict.VOID)
        await PostgresSettlementStore(books.pool).end_by_policy([void])
    assert await books.state(hold_id) == ending
    return hold_id


@pytest.mark.parametrize("ending", ["released", "expired"])
@pytest.mark.parametrize("source", [Source.STREAM, Source.FILE, Source.LOOKUP])
async def test_a_charge_after_the_end_is_posted_all_the_same(
    books: Books, ending: str, source: Source
) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await late(books, payer, ending)
    assert await books.funds("alice") == (5 * USD, 0, 0)
    for _ in range(2):
        await settle(books, hold_id, "0.40", source)
    assert await books.funds("alice") == (5 * USD - 40 * CENT, 0, 0)
    assert await books.state(hold_id) == ending
    assert await books.postings(hold_id) == [("excess", -40 * CENT)]
    assert await books.records(hold_id) == [(0, "late", source.value, 40 * CENT, 40 * CENT)]
    assert await books.conflicts() == []
    assert (await books.verified()).is_ok


async def test_a_late_charge_is_corrected_like_any_other(books: Books) -> None:
    payer = await books.payer("alice", 5 * USD)
    hold_id = await late(books, payer, "released")
    await settle(books, hold_id, "0.40", Source.STREAM)
    await settle(books, hold_id, "0.10", Source.LOOKUP)
    assert await books.funds("alice") == (5 * USD - 10 * CENT, 0, 0)
    assert await books.postings(hold_id) == [("excess", -40 * CENT), ("correction", 30 * CENT)]
    assert (await books.verified()).is_ok


@pytest.mark.parametrize("ending", ["released", "expired"])
async def test_a_late_charge_overdraws_by_itself_only_and_blocks(books: Books, ending: str) -> None:
    payer = await books.payer("alice", USD)
    hold_id = await late(books, payer, ending)
    spent = await books.held(payer, USD)
    await settle(books, hold_id, "0.40", Source.STREAM)
    assert await books.funds("alice") == (60 * CENT, USD, 40 * CENT)
    await settle(books, spent, "1", Source.STREAM)
    assert await books.funds("alice") == (-40 * CENT, 0, 40 * CENT)
    assert await is_blocked(books, payer)
    verification = await books.verified()
    assert verification.is_ok
    assert verification.totals.excess_picos == 40 * CENT
    await LedgerStore(books.pool).post_credit(credit("alice", "k", 41 * CENT, "paid"))
    assert not await is_blocked(books, payer)
    assert await books.funds("alice") == (CENT, 0, 0)


async def test_who_knows_whom_to_ask_is_heard_after_a_guess(books: Books) -> None:
    """Void or provisional were guesses; a generation id that comes later gets them looked up."""
    payer = await books.payer("alice", 5 * USD)
    void, charged = await late(books, payer, "expired"), await books.held(payer, USD)
    settlements = PostgresSettlementStore(books.pool)
    await settlements.end_by_policy([decision(charged)])
    settled = await books.held(payer, USD)
    await settle(books, settled, "0.1", Source.STREAM)
    for hold_id in (void, charged, settled):
        await settlements.settle([observed(hold_id, usage=None, generation_id="gen-9")])
    rows = await books.pool.fetch("SELECT hold_id, generation_id FROM lookups")
    assert {(row[0], row[1]) for row in rows} == {(void, "gen-9"), (charged, "gen-9")}
    assert await books.funds("alice") == (5 * USD - GUESS - 10 * CENT, 0, 0)


async def test_two_meters_correct_and_post_late_once(books: Books) -> None:
    payer = await books.payer("alice", 50 * USD)
    settled = [await books.held(payer, USD) for _ in range(5)]
    ended = [await late(books, payer, "released") for _ in range(5)]
    meters = [PostgresSettlementStore(books.pool) for _ in range(4)]
    await meters[0].settle([observed(hold_id, "0.20") for hold_id in settled])
    truth = [observed(one, "0.25", source=Source.LOOKUP) for one in (*settled, *ended)]
    await asyncio.gather(
        *(meter.settle(truth[turn:] + truth[:turn]) for turn, meter in enumerate(meters))
    )
    await books.settle_parked()
    assert await books.funds("alice") == (50 * USD - 10 * 25 * CENT, 0, 0)
    assert await books.pool.fetchval("SELECT count(*) FROM usage_records") == 15
    assert (await books.verified()).is_ok


Argument = TypeVar("Argument")


async def until_unlocked(call: Callable[[Argument], Awaitable[object]], argument: Argument) -> None:
    """Call again for as long as a row that the call needs is locked."""
    while True:
        try:
            await call(argument)
        except RowLocked:
            continue
        return


async def test_credits_settlements_and_releases_never_wait_in_a_circle(books: Books) -> None:
    """Do all that takes more than one lock at once; a deadlock would be an outage here.

    On a busy machine a lock may take longer than a statement waits for it. Such work is asked for
    again, or parked, as the meter does; a deadlock is not, and fails the test.
    """
    payers = [await books.payer(f"payer{n}", 50 * USD) for n in range(3)]
    ledger = LedgerStore(books.pool)

    async def work(worker: int) -> None:
        settlements = PostgresSettlementStore(books.pool)
        for turn in range(ROUNDS):
            order = payers[worker % 3 :] + payers[: worker % 3]
            holds = [await books.held(payer, USD) for payer in order]
            released = await books.held(order[0], USD)
            await until_unlocked(books.holds.release, [released])
            await settlements.settle([observed(hold_id, "0.10") for hold_id in holds[:2]])
            await until_unlocked(settlements.end_by_policy, [decision(holds[2])])
            again = [*reversed(holds), released]
            await settlements.settle([observed(one, "0.11", source=Source.LOOKUP) for one in again])
            for payer in order:
                posting = credit(payer.account_id, f"{worker}-{turn}", CENT, "concurrently")
                await until_unlocked(ledger.post_credit, posting)

    await asyncio.gather(*(work(worker) for worker in range(WORKERS)))
    await books.settle_parked()
    paid = sum([(await books.funds(payer.account_id))[0] for payer in payers])
    turns = WORKERS * ROUNDS
    assert paid == 150 * USD - turns * 4 * 11 * CENT + turns * 3 * CENT
    verification = await books.verified()
    assert verification.is_ok, verification.failures


async def test_a_replayed_credit_answers_the_balance_of_then(books: Books) -> None:
    payer = await books.payer("alice", USD)
    ledger = LedgerStore(books.pool)
    first = await ledger.post_credit(credit("alice", "k", 2 * USD, "paid"))
    hold_id = await books.held(payer, USD)
    await settle(books, hold_id, "1", Source.STREAM)
    again = await ledger.post_credit(credit("alice", "k", 2 * USD, "paid"))
    assert (first.was_replayed, again.was_replayed) == (False, True)
    assert again.balance_after_picos == first.balance_after_picos == 3 * USD
    assert again.recorded_at == first.recorded_at
    assert await books.funds("alice") == (2 * USD, 0, 0)
