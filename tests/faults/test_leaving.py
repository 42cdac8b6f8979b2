"""A client leaves, wherever it likes: settled as billed, or nothing at all."""

import asyncio
import itertools
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from chaos.customers import Customer
from chaos.locks import locked
from chaos.stack import ChaosStack, signal_family
from tests.faults.auditor import Auditor, Expected, Usage
from tests.faults.departures import (
    BILLED_POINTS,
    CREDIT_PICOS,
    UNBILLED_POINTS,
    Departure,
    Stage,
    ask,
    departures,
)
from tests.patience import WAIT_S

# authz gives up a check after 1.5 s.
LOCKED_S = 0.5
ROUNDS_ABOUT_THE_DECISION = 25
# So that a check takes its few milliseconds, and not its place in a queue. On a busy machine the
# clients need to be further apart and to stay longer, until some of them leave in time and some do
# not.
APART_S = 0.012
PACES = (1, 3, 9, 27)


@asynccontextmanager
async def on_stage(stack: ChaosStack) -> AsyncIterator[Stage]:
    async with aiohttp.ClientSession() as session:
        yield Stage(stack, session)


def report(title: str, cases: list[Departure], took_s: dict[int, float], what: list[str]) -> None:
    """Print the time that each point took, for those who run this with -s."""
    by_point = defaultdict[str, list[float]](list)
    for case in cases:
        by_point[case.point].append(took_s[case.number])
    lines = [f"{title}: {dict(Counter(what))}"]
    for point, times in by_point.items():
        lines.append(
            f"  {point:<22} {len(times):>2} left, over after {min(times):.1f}-{max(times):.1f} s"
        )
    sys.stdout.write("\n" + "\n".join(lines) + "\n")


async def leave_all(
    stage: Stage,
    cases: list[Departure],
    customers: dict[int, Customer],
    apart_s: float = 0.0,
    pace: int = 1,
) -> dict[int, float]:
    """All at once or a bit apart; how long after leaving the hold of each was last seen live."""

    async def leave(position: int, case: Departure) -> float:
        await asyncio.sleep(position * apart_s * pace)
        return await stage.leave(case, customers[case.number], pace)

    left_at = await asyncio.gather(*itertools.starmap(leave, enumerate(cases)))
    accounts = [customers[case.number].id for case in cases]
    last_seen = await Auditor(stage.stack).wait_ended(accounts, WAIT_S)
    return {
        case.number: max(0.0, last_seen.get(customers[case.number].id, left) - left)
        for case, left in zip(cases, left_at, strict=True)
    }


def is_billed(point: str) -> bool | None:
    """Return whether the upstream bills a client that leaves there; None where it depends."""
    return None if point == "deciding" else point in BILLED_POINTS


async def check_books(
    stack: ChaosStack, cases: list[Departure], customers: dict[int, Customer]
) -> list[Usage]:
    """Each account has paid exactly what the upstream bills for its case."""
    expected = [
        Expected(case.name, customers[case.number].id, case.prompt_tokens, is_billed(case.point))
        for case in cases
    ]
    return await Auditor(stack).check_paid(expected, CREDIT_PICOS)


async def test_whoever_leaves_pays_what_was_billed(brisk_stack: ChaosStack) -> None:
    cases, hushed = departures([*BILLED_POINTS, *UNBILLED_POINTS]), departures(["thinking"])
    async with on_stage(brisk_stack) as stage:
        customers = await stage.open_accounts([*cases, *hushed])
        await stage.behave(case.behaviour() for case in cases)
        await stage.behave(case.behaviour(omit_report=True) for case in hushed)
        took_s = await leave_all(stage, [*cases, *hushed], customers)
    usage = await check_books(brisk_stack, cases, customers)
    report("with reports", cases, took_s, [f"{one.kind} by {one.source}" for one in usage])
    assert {one.source for one in usage} == {"stream", "lookup"}
    endings = await Auditor(brisk_stack).endings(one.id for one in customers.values())
    for case in cases:
        reasons = endings.get(customers[case.number].id, [])
        if case.point in ("headers", "body"):
            assert reasons == [], case.name
        elif case.point == "refused later":
            assert reasons == ["not_billed"], case.name
        else:
            assert "not_billed" not in reasons, case.name
    # Billed, but the provider that reports everything did not say so: not charged, and tagged.
    accounts = [customers[case.number].id for case in hushed]
    assert await Auditor(brisk_stack).usage(accounts) == []
    assert {tuple(endings[account]) for account in accounts} == {("not_billed",)}


async def test_whoever_leaves_about_the_decision_pays_if_it_was_billed(
    brisk_stack: ChaosStack,
) -> None:
    billed = asked = 0
    for pace in PACES:
        cases = departures(["deciding"] * ROUNDS_ABOUT_THE_DECISION)
        async with on_stage(brisk_stack) as stage:
            customers = await stage.open_accounts(cases)
            await stage.behave(case.behaviour() for case in cases)
            took_s = await leave_all(stage, cases, customers, APART_S, pace)
        billed += len(await check_books(brisk_stack, cases, customers))
        asked += len(cases)
        endings = await Auditor(brisk_stack).endings(one.id for one in customers.values())
        what = [reason for reasons in endings.values() for reason in reasons]
        report("about the decision", cases, took_s, what)
        if 0 < billed < asked:
            break
    assert 0 < billed < asked


async def test_without_reports_a_policy_decides_where_nobody_knows_the_generation(
    unreported_stack: ChaosStack,
) -> None:
    cases = departures(BILLED_POINTS)
    async with on_stage(unreported_stack) as stage:
        customers = await stage.open_accounts(cases)
        await stage.behave(case.behaviour() for case in cases)
        took_s = await leave_all(stage, cases, customers)
    auditor = Auditor(unreported_stack)
    usage = await auditor.usage(one.id for one in customers.values())
    report("without reports", cases, took_s, [f"{one.kind} by {one.source}" for one in usage])
    guessed = {one.account_id for one in usage if one.source == "policy"}
    known = [case for case in cases if customers[case.number].id not in guessed]
    await check_books(unreported_stack, known, customers)
    for case in cases:
        account = customers[case.number].id
        if account not in guessed:
            assert case.point != "thinking", case.name
            continue
        assert case.point in ("thinking", "answering"), case.name
        (guess,) = [one for one in usage if one.account_id == account]
        assert (guess.kind, guess.price_source, guess.generation_id) == (
            "provisional",
            "estimate",
            None,
        )
        (row,) = [row for row in auditor.bill() if row.prompt_tokens == case.prompt_tokens]
        # Such requests usually cost about as much, whatever was held for this one.
        assert row.cost_picos / 3 <= guess.charge_picos <= row.cost_picos * 3, case.name
        funds = await auditor.funds([account])
        assert funds[account] == (CREDIT_PICOS - guess.charge_picos, 0)
    assert guessed


@asynccontextmanager
async def accounts_locked(stack: ChaosStack, accounts: list[str]) -> AsyncIterator[None]:
    """No hold can be placed for these accounts inside the block."""
    lock = "SELECT FROM accounts WHERE id = ANY ($1) FOR UPDATE"
    async with locked(stack.dsn(), lock, accounts):
        yield


@asynccontextmanager
async def authz_stopped(stack: ChaosStack, _: list[str]) -> AsyncIterator[None]:
    """authz is stopped (SIGSTOP) inside the block."""
    (authz,) = stack.instances_of("authz")
    assert authz.pid is not None
    signal_family(authz.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_family(authz.pid, signal.SIGCONT)


@pytest.mark.parametrize("hindrance", [accounts_locked, authz_stopped])
async def test_whoever_leaves_during_the_check_pays_nothing(
    brisk_stack: ChaosStack, hindrance: object
) -> None:
    cases = departures(["check"])
    async with on_stage(brisk_stack) as stage:
        customers = await stage.open_accounts(cases)
        accounts = [one.id for one in customers.values()]
        await stage.behave([case.behaviour() for case in cases])
        exchanges = [await stage.begin(case, customers[case.number]) for case in cases]
        async with hindrance(brisk_stack, accounts):  # type: ignore[operator]
            for case, exchange in zip(cases, exchanges, strict=True):
                await ask(exchange, case)
            await asyncio.sleep(LOCKED_S)
            assert await stage.arrived(cases) == []
            for case, exchange in zip(cases, exchanges, strict=True):
                await exchange.leave(case.how)
            left_at = time.monotonic()
            await asyncio.sleep(0.2)
        last_seen = await Auditor(brisk_stack).wait_ended(accounts, WAIT_S)
    await check_books(brisk_stack, cases, customers)
    took_s = {c.number: last_seen.get(customers[c.number].id, left_at) - left_at for c in cases}
    endings = await Auditor(brisk_stack).endings(accounts)
    report(
        f"during the check ({hindrance.__name__})",  # type: ignore[attr-defined]
        cases,
        took_s,
        [reason for reasons in endings.values() for reason in reasons],
    )
