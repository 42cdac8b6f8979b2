"""`python -m chaos.rounds`: N at once against a balance for k of them; never more than k go up.

Every request of a round is answered after the last of them was decided: until then no hold ends,
so that the balance covers exactly k. A round in which that failed says nothing, and is repeated.
"""

import argparse
import asyncio
import random
import re
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp

from chaos.books import read_books
from chaos.campaign import SETTINGS
from chaos.check_bill import check_bill, check_charges
from chaos.check_funds import check_accounts, check_endings
from chaos.customers import Administrator, Customer
from chaos.quiescence import wait_quiet
from chaos.records import KIND_HEADER, TAG_HEADER
from chaos.requests import PATH
from chaos.stack import ChaosStack, chaos_environment
from chaos.upstream import Upstream, read_bill
from chaos.verdict import Findings

# How many rounds with how many requests at once; together a thousand.
FULL: Final = ((880, 10), (100, 100), (20, 500))
SHORT: Final = ((24, 10), (5, 100), (1, 500))
# How long the upstream thinks, by the size of the round: longer than all decisions take.
THINKS_MS: Final = {10: 400, 100: 1_500, 500: 6_000}
REPEATS_MOST: Final = 3
TOLD_EVERY: Final = 50
TIMEOUT: Final = aiohttp.ClientTimeout(total=300)
QUIET_MOST_S: Final = 300.0
_NEEDED: Final = re.compile(r"may cost up to ([0-9.]+) USD")
_DECISIONS: Final = re.compile(r"^tollkeeper_authz_decisions_total\{.*\} (\S+)$", re.MULTILINE)
_BODY: Final = {
    "model": "openai/gpt-4o-mini",
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "Hello"}],
}


@dataclass(frozen=True, slots=True)
class Round:
    """One round as it went. `arrived` reached the upstream; `may` were covered."""

    name: str
    size: int
    may: int
    arrived: int
    statuses: Counter[int]
    is_conclusive: bool

    @property
    def is_overspent(self) -> bool:
        """More went up than the balance covered."""
        return self.is_conclusive and self.arrived > self.may


class Rounds:
    """Plays rounds against one stack."""

    def __init__(self, stack: ChaosStack, session: aiohttp.ClientSession, seed: int) -> None:
        self._url = stack.endpoint("gateway") + PATH
        self._session = session
        self._draw = random.Random(seed)
        self.administrator = Administrator(stack, session)
        self.upstream = Upstream(stack.endpoint("simulator"), session)
        self.customers: list[Customer] = []

    async def play(self, plan: Iterable[tuple[int, int]]) -> list[Round]:
        """All rounds, one after another."""
        thinking = [
            {"match": {"header": {KIND_HEADER: f"round-{size}"}}, "delay_ms": thinks_ms}
            for size, thinks_ms in THINKS_MS.items()
        ]
        await self.upstream.behave(thinking)
        needed = await self._needed()
        sizes = [size for count, size in plan for _ in range(count)]
        played: list[Round] = []
        for number, size in enumerate(sizes, start=1):
            played.append(await self._conclusive(f"round-{number}", size, needed))
            if number % TOLD_EVERY == 0:
                sys.stderr.write(f"{number} of {len(sizes)} rounds\n")
        return played

    async def _conclusive(self, name: str, size: int, needed: Decimal) -> Round:
        for repeat in range(REPEATS_MOST):
            found = await self._round(f"{name}-{repeat}", size, needed)
            if found.is_conclusive:
                break
        return found

    async def _round(self, name: str, size: int, needed: Decimal) -> Round:
        may = self._draw.randrange(1, size)
        payer = await self.administrator.open_account(name, f"{needed * may:f}")
        self.customers.append(payer)
        ended = await asyncio.gather(
            *(self._ask(payer, f"{name} {number}", size) for number in range(size))
        )
        await self.upstream.look()
        arrived = sum((one.tag or "").startswith(f"{name} ") for one in self.upstream.arrivals)
        self.upstream.arrivals.clear()
        answers = [at for status, at in ended if status == 200]
        decisions = [at for status, at in ended if status != 200]
        is_conclusive = bool(answers and decisions) and max(decisions) < min(answers)
        statuses = Counter(status for status, _ in ended)
        return Round(name, size, may, arrived, statuses, is_conclusive)

    async def _needed(self) -> Decimal:
        """Return the most that one request may cost, as its refusal says."""
        poor = await self.administrator.open_account("nobody", "0.000000000001")
        async with self._post(poor, "needed", 0) as reply:
            found = _NEEDED.search((await reply.json())["error"]["message"])
        if found is None:
            raise RuntimeError("the refusal does not say how much is needed")
        return Decimal(found[1])

    async def _ask(self, payer: Customer, tag: str, size: int) -> tuple[int, float]:
        """The status, and when the answer began."""
        async with self._post(payer, tag, size) as reply:
            answered_at = time.monotonic()
            await reply.read()
            return reply.status, answered_at

    def _post(self, payer: Customer, tag: str, size: int) -> Any:
        headers = {
            "Authorization": f"Bearer {payer.key}",
            TAG_HEADER: tag,
            KIND_HEADER: f"round-{size}",
        }
        return self._session.post(self._url, json=_BODY, headers=headers, timeout=TIMEOUT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All rounds, what the books say of them, and how many checks each authz decided."""

    rounds: list[Round]
    findings: Findings
    checks: dict[str, int]

    @property
    def unclear(self) -> list[str]:
        """Rounds that say nothing."""
        return [one.name for one in self.rounds if not one.is_conclusive]

    @property
    def is_right(self) -> bool:
        """True if nobody got more than was covered, in every round, and every authz took part."""
        is_covered = not any(one.is_overspent for one in self.rounds)
        return is_covered and not self.unclear and not self.findings.failures and self._all_decided

    @property
    def _all_decided(self) -> bool:
        return len(self.checks) > 1 and all(self.checks.values())


async def run_rounds(folder: Path, seed: int, plan: tuple[tuple[int, int], ...]) -> Outcome:
    """All rounds on a fresh stack with two authz, then the books against the bill."""
    home = folder / "home"
    stack = ChaosStack(home, chaos_environment(home, SETTINGS), instances=2)
    try:
        await asyncio.to_thread(stack.up)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            rounds = Rounds(stack, session, seed)
            played = await rounds.play(plan)
            return Outcome(played, await _judge(stack, rounds), await _checks(stack))
    finally:
        await asyncio.to_thread(stack.down)


async def _judge(stack: ChaosStack, rounds: Rounds) -> Findings:
    await wait_quiet(stack, QUIET_MOST_S)
    books, findings = await read_books(stack), Findings()
    check_endings(books, findings)
    check_bill(books, read_bill(stack.bill), findings)
    check_charges(books, findings)
    check_accounts(books, rounds.customers, rounds.administrator.given, findings)
    return findings


async def _checks(stack: ChaosStack) -> dict[str, int]:
    """Return the number of checks that each authz decided, as its metrics say."""
    found: dict[str, int] = {}
    for path in sorted(stack.run_folder.glob("authz*-health.sock")):
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://authz/metrics") as reply,
        ):
            counts = _DECISIONS.findall(await reply.text())
            found[path.name.removesuffix("-health.sock")] = sum(int(float(one)) for one in counts)
    return found


def to_text(played: list[Round]) -> str:
    """The result as a table."""
    lines = ["| N at once | rounds | covered | reached the upstream | more than covered |"]
    lines.append("|---|---|---|---|---|")
    for size in sorted({one.size for one in played}):
        same = [one for one in played if one.size == size]
        may, arrived = sum(one.may for one in same), sum(one.arrived for one in same)
        over = sum(one.is_overspent for one in same)
        lines.append(f"| {size} | {len(same)} | {may} | {arrived} | {over} |")
    return "\n".join(lines)


def main() -> int:
    """Exit code 0 only when nobody got more than was covered and every round says so."""
    parser = argparse.ArgumentParser(prog="python -m chaos.rounds", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--short", action="store_true", help="some thirty rounds instead")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tk-rounds-", dir="/tmp") as folder:
        plan = SHORT if given.short else FULL
        outcome = asyncio.run(run_rounds(Path(folder), given.seed, plan))
    print(to_text(outcome.rounds))
    shares = ", ".join(f"{name} {count}" for name, count in outcome.checks.items())
    print(f"checks decided: {shares}")
    for failure in outcome.findings.failures:
        print(f"  {failure}")
    if outcome.unclear:
        print(f"  rounds that say nothing: {', '.join(outcome.unclear)}")
    print("Never more than covered." if outcome.is_right else "NOT RIGHT.")
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
