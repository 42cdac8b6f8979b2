"""Runs attacks one after the other against one stack, and measures what a bystander sees."""

import asyncio
import contextlib
import json
import sys
import time
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import asyncpg

from attacks.attacker import (
    ABANDONED,
    API_FLOOD,
    ATTACK_HEADER,
    BEGUN,
    EXCEEDED_HOLDS,
    SEARCHING_MODEL,
    SLOW_READERS,
)
from attacks.bystander import Seen, ask_steadily
from chaos.customers import Administrator, Customer
from chaos.locks import locked
from chaos.quiescence import wait_quiet
from chaos.stack import ChaosStack
from chaos.upstream import Upstream, read_bill
from tollkeeper.stack.supervision.priority import behind_others

MODEL: Final = "openai/gpt-4o-mini"
LOCKED_ACCOUNT: Final = "locked account"
CREDIT_USD: Final = "500"
# Less than the cheapest request costs.
POOR_USD: Final = "0.000000000001"
# For a few requests with searches.
LITTLE_USD: Final = "1"
# Far more than a request of the model is held for.
UNASKED_SEARCHES: Final = 60


def _of_attack(name: str) -> dict[str, Any]:
    return {"match": {"header": {ATTACK_HEADER: name}}}


# The upstream's behaviour during an attack.
BEHAVIOURS: Final[Mapping[str, dict[str, Any]]] = {
    EXCEEDED_HOLDS: {
        "match": {"model": SEARCHING_MODEL},
        "unasked_searches": UNASKED_SEARCHES,
    },
    # The streams are there for as long as the attack.
    SLOW_READERS: {**_of_attack(SLOW_READERS), "chunk_delay_ms": 200},
    # No record tells what half of the requests cost whose client left.
    ABANDONED: {
        **_of_attack(ABANDONED),
        "delay_ms": 300,
        "chunk_delay_ms": 50,
        "omit_generation": True,
    },
}
# Holds whose usage nobody tells end by policy within seconds, and the provider's total is known
# soon. By default an attack would have to wait for a quarter of an hour.
SETTINGS: Final = {
    "TOLLKEEPER_LOOKUP_FIRST_DELAY_S": "1",
    "TOLLKEEPER_LOOKUP_PATIENCE_S": "8",
    "TOLLKEEPER_RECONCILE_LAG_S": "1",
    "SIMULATOR_GENERATION_DELAY_MS": "500",
}
# No less than the lag of the provider's total, see SETTINGS.
LAG_S: Final = 2.0
# A debt is written off some seconds after the last hold has ended.
WRITTEN_OFF_WITHIN_S: Final = 120.0
LOOK_EVERY_S: Final = 0.5
# An attacker has a machine of its own. Here it shares the stack's, and is given only the time of
# the processor that nothing else wants: it must not be the attacker who delays the bystander.
ATTACKER_NICENESS: Final = 19
# The bystander of a flood from one address asks from another.
ELSEWHERE: Final = "127.0.0.2"
QUIET_MOST_S: Final = 300.0
# A bystander of any attack keeps at least this share of successes (V12), ...
LEAST_SUCCESS: Final = 0.99
# ... and at most so many times the usual 95th percentile.
MOST_SLOWDOWN: Final = 5.0
# Charge divided by bill, in sum over an attack (V13).
MOST_CHARGE: Final = 1.05


@dataclass(frozen=True, slots=True)
class Row:
    """One attack: what it spent, and what it did to others and to the books.

    `charge` is what was charged during the attack, divided by what the provider billed; None where
    nothing was billed. `lost_picos` is what the house bore of debts.
    """

    attack: str
    spent: dict[str, Any]
    usual: Seen
    seen: Seen
    worst_balance_picos: int
    charge: float | None
    lost_picos: int

    @property
    def slowdown(self) -> float:
        """Return the 95th percentile beside the usual one."""
        return self.seen.p95_ms / self.usual.p95_ms if self.usual.p95_ms else 0.0

    @property
    def slowest(self) -> float:
        """Return the 99th percentile beside the usual one."""
        return self.seen.p99_ms / self.usual.p99_ms if self.usual.p99_ms else 0.0

    def failures(self) -> list[str]:
        """Return the limits that were not kept."""
        broken = []
        if self.seen.success < LEAST_SUCCESS:
            broken.append(f"success {self.seen.success:.1%} is below {LEAST_SUCCESS:.0%}")
        if self.slowdown > MOST_SLOWDOWN:
            broken.append(f"p95 is {self.slowdown:.1f} times the usual, above {MOST_SLOWDOWN:.0f}")
        if self.worst_balance_picos < 0:
            broken.append(f"a balance is {self.worst_balance_picos} pico-dollars")
        if self.lost_picos and self.attack != EXCEEDED_HOLDS:
            broken.append(f"the house lost {self.lost_picos} pico-dollars")
        if self.charge is not None and self.charge > MOST_CHARGE:
            broken.append(f"charges are {self.charge:.3f} of the bill, above {MOST_CHARGE}")
        return broken


@dataclass(frozen=True, slots=True)
class Ground:
    """A running stack with its accounts."""

    stack: ChaosStack
    bystander: Customer
    attacker: Customer
    poor: Customer
    searcher: Customer
    exceeder: Customer
    upstream: Upstream
    administrator: Administrator

    def target(self, seconds: float) -> dict[str, Any]:
        """Return what the attacker is told."""
        gateway = urllib.parse.urlsplit(self.stack.endpoint("gateway"))
        assert gateway.hostname and gateway.port
        keys = {
            "key": self.attacker.key,
            "poor_key": self.poor.key,
            "searcher_key": self.searcher.key,
            "exceeder_key": self.exceeder.key,
        }
        return {"host": gateway.hostname, "port": gateway.port, "model": MODEL, **keys} | {
            "seconds": seconds
        }


async def run_attacks(
    stack: ChaosStack, names: Iterable[str], seconds: float
) -> AsyncGenerator[Row]:
    """Run attacks against a started stack, one after the other; yield the row of each."""
    async with aiohttp.ClientSession() as session:
        administrator = Administrator(stack, session)
        ground = Ground(
            stack,
            await administrator.open_account("bystander", CREDIT_USD),
            await administrator.open_account("attacker", CREDIT_USD),
            await administrator.open_account("poor", POOR_USD),
            await administrator.open_account("searcher", LITTLE_USD),
            await administrator.open_account("exceeder", LITTLE_USD),
            Upstream(stack.endpoint("simulator"), session),
            administrator,
        )
        await _ask(ground, LOCKED_ACCOUNT, seconds / 3)  # warms caches and connections
        for name in names:
            yield await _run(ground, name, seconds)


async def _run(ground: Ground, name: str, seconds: float) -> Row:
    usual = await _ask(ground, name, seconds)
    await wait_quiet(ground.stack, QUIET_MOST_S)
    before = await _read_books(ground.stack)
    async with _prepared(ground, name), _attack(ground, name, seconds) as end:
        seen = await _ask(ground, name, seconds * 0.9)
        spent = await end()
    await wait_quiet(ground.stack, QUIET_MOST_S)
    if name == ABANDONED:
        await asyncio.sleep(LAG_S)
        await ground.administrator.reconcile()
    after = await _read_books(ground.stack)
    deadline_s = time.monotonic() + WRITTEN_OFF_WITHIN_S
    while after.worst_balance_picos < 0 and time.monotonic() < deadline_s:
        await asyncio.sleep(LOOK_EVERY_S)
        after = await _read_books(ground.stack)
    billed = after.billed_picos - before.billed_picos
    return Row(
        attack=name,
        spent=spent,
        usual=usual,
        seen=seen,
        worst_balance_picos=after.worst_balance_picos,
        charge=(after.charged_picos - before.charged_picos) / billed if billed else None,
        lost_picos=after.lost_picos - before.lost_picos,
    )


async def _ask(ground: Ground, name: str, seconds: float) -> Seen:
    """Ask as the bystander of an attack does, who uses what is attacked."""
    base, key = ground.stack.endpoint("gateway"), ground.bystander.key
    if name == API_FLOOD:
        return await ask_steadily(base, key, None, seconds, ELSEWHERE)
    return await ask_steadily(base, key, MODEL, seconds)


@contextlib.asynccontextmanager
async def _attack(
    ground: Ground, name: str, seconds: float
) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """Begin an attack; give what waits for its end and returns what it spent."""
    process = await asyncio.create_subprocess_exec(
        # The requests of a locked account wait, and must be there to wait on a busy machine too.
        *(() if name == LOCKED_ACCOUNT else behind_others(ATTACKER_NICENESS)),
        *(sys.executable, "-m", "attacks.attacker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    kind = "flood of one account" if name == LOCKED_ACCOUNT else name
    request = json.dumps({"attack": kind, "target": ground.target(seconds)})

    async def end() -> dict[str, Any]:
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the attack {name} failed")
        spent: dict[str, Any] = json.loads(output)
        return spent

    try:
        process.stdin.write(request.encode())
        process.stdin.close()
        # The attack has begun when the bystander asks, however long the process took to start.
        if await process.stdout.readline() != BEGUN:
            raise RuntimeError(f"the attack {name} did not begin")
        yield end
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _prepared(ground: Ground, name: str) -> AsyncIterator[None]:
    """Make what an attack needs beside its process, for as long as it runs."""
    if name == LOCKED_ACCOUNT:
        # As a person with a session in Postgres can.
        lock = "SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE"
        async with locked(ground.stack.owner_dsn, lock, ground.attacker.id):
            yield
        return
    if name == ABANDONED:
        # From here on, the provider's total says what the unknown requests cost together.
        await ground.administrator.reconcile(is_baseline=True)
    if behaviour := BEHAVIOURS.get(name):
        await ground.upstream.behave([behaviour])
    yield
    await ground.upstream.behave([])


@dataclass(frozen=True, slots=True)
class _Books:
    """The sums charged, billed and written off so far, and the worst balance of an account."""

    charged_picos: int
    billed_picos: int
    lost_picos: int
    worst_balance_picos: int


async def _read_books(stack: ChaosStack) -> _Books:
    connection = await asyncpg.connect(stack.owner_dsn)
    try:
        charged = await connection.fetchval("SELECT sum(charge_picos)::bigint FROM usage_records")
        lost = await connection.fetchval("SELECT sum(amount_picos)::bigint FROM write_offs")
        worst = await connection.fetchval("SELECT min(balance_picos) FROM accounts")
    finally:
        await connection.close()
    billed = sum(row.cost_picos for row in read_bill(stack.bill))
    return _Books(charged or 0, billed, lost or 0, worst)
