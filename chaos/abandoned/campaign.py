"""Abandons requests in twelve ways, and compares what was charged with what was billed.

Provider reports are off, as by default: what no header names is charged by policy. Then the
provider's total is known and quiet, and reconciliation corrects the guesses.
"""

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import asyncpg

from chaos.abandoned.kinds import KINDS, LOST, Kind, request_body, request_headers
from chaos.abandoned.verdict import Charged, Verdict, read_bill_by_tag
from chaos.customers import Administrator
from chaos.exchange import ExchangeError, open_exchange
from chaos.requests import PATH
from chaos.stack import ChaosStack, chaos_environment, signal_family
from chaos.upstream import Upstream

SETTINGS: Final = {
    "TOLLKEEPER_PROVIDER_REPORTS": "false",
    "TOLLKEEPER_AUTHZ_HOLD_LIFETIME_S": "60",
    "TOLLKEEPER_LOOKUP_FIRST_DELAY_S": "1",
    "TOLLKEEPER_LOOKUP_PATIENCE_S": "8",
    "TOLLKEEPER_LOOKUPS_PER_SECOND": "200",
    "TOLLKEEPER_RECONCILE_LAG_S": "1",
    "SIMULATOR_GENERATION_DELAY_MS": "500",
}
# Requests that are read to their end first: from them the usual cost is known.
ORDINARY: Final = 80
ORDINARY_AT_ONCE: Final = 8
AT_ONCE: Final = 40
ACCOUNTS: Final = 4
TIMEOUT_S: Final = 120.0
QUIET_MOST_S: Final = 240.0
LOOK_EVERY_S: Final = 0.5
# Both logs have a request long before.
LOGGED_WITHIN_S: Final = 5.0
# No less than the lag of the provider's total, see SETTINGS.
LAG_S: Final = 2.0

_HOLDS: Final = """
SELECT h.request_id, h.amount_picos, sum(u.charge_picos)::bigint AS charge_picos,
       sum(u.charge_picos) FILTER (WHERE u.kind = 'provisional')::bigint AS guess_picos
FROM ended_holds h
LEFT JOIN usage_records u ON u.hold_id = h.id AND u.placed_at = h.placed_at
GROUP BY h.id, h.placed_at, h.request_id, h.amount_picos
"""


class Campaign:
    """A running stack, its customers and everything that was asked."""

    def __init__(self, stack: ChaosStack, session: aiohttp.ClientSession, seed: int) -> None:
        self._stack = stack
        self._session = session
        self._draw = random.Random(f"abandoned {seed}")
        self._upstream = Upstream(stack.endpoint("simulator"), session)
        self._keys: list[str] = []
        self._kinds: dict[str, str] = {}

    async def run(self, requests: int) -> Verdict:
        """Abandon so many requests of each kind alike, let all end, correct, and compare."""
        administrator = Administrator(self._stack, self._session)
        accounts = [
            await administrator.open_account(f"leaver-{n}", "5000") for n in range(ACCOUNTS)
        ]
        self._keys = [account.key for account in accounts]
        await administrator.reconcile(is_baseline=True)
        await self._upstream.behave([kind.to_behaviour() for kind in KINDS])
        watching = asyncio.create_task(self._upstream.watch())
        try:
            await self._ask_many([None] * ORDINARY, ORDINARY_AT_ONCE)
            await self._wait_for("SELECT count(*) >= $1 FROM usual_uses", len(self._keys))
            others = [kind for kind in KINDS if kind is not LOST]
            kinds = [others[number % len(others)] for number in range(requests)]
            lost = max(1, requests // len(KINDS))
            await self._ask_many(list(kinds[: requests - lost]), AT_ONCE)
            await self._lose(lost)
            await self._let_holds_expire()
            await self._wait_for("SELECT NOT EXISTS (SELECT FROM holds)")
            await asyncio.sleep(LAG_S)
            await administrator.reconcile()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await self._upstream.look()
        return await self._compare()

    async def _ask_many(self, kinds: list[Kind | None], at_once: int) -> None:
        gate = asyncio.Semaphore(at_once)

        async def ask(kind: Kind | None) -> None:
            async with gate:
                await self._ask(kind)

        await asyncio.gather(*map(ask, kinds))

    async def _lose(self, how_many: int) -> None:
        """Kill Envoy with requests under way, a few at a time."""
        for first in range(0, how_many, AT_ONCE):
            size = min(AT_ONCE, how_many - first)
            before = await self._upstream.count()
            asked = asyncio.create_task(self._ask_many([LOST] * size, AT_ONCE))
            async with asyncio.timeout(TIMEOUT_S):
                while await self._upstream.count() < before + (size + 1) // 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            killed = self._pids_of_envoy()
            for pid in killed:
                signal_family(pid, signal.SIGKILL)
            await asked
            async with asyncio.timeout(TIMEOUT_S):
                # The supervisor needs a moment to notice.
                while killed & self._pids_of_envoy() or not self._stack.is_well():  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)

    def _pids_of_envoy(self) -> set[int]:
        return {one.pid for one in self._stack.instances_of("envoy") if one.pid is not None}

    async def _let_holds_expire(self) -> None:
        """Let the limit of holds pass for those that no log names, without waiting for it."""
        await asyncio.sleep(LOGGED_WITHIN_S)
        connection = await asyncpg.connect(self._stack.dsn())
        try:
            await connection.execute(
                "UPDATE holds SET expires_at = clock_timestamp() WHERE state = 'open'"
            )
        finally:
            await connection.close()

    async def _ask(self, kind: Kind | None) -> None:
        tag = f"{self._draw.getrandbits(64):016x}"
        self._kinds[tag] = "ordinary" if kind is None else kind.name
        is_stream = kind.is_stream if kind is not None else self._draw.random() < 0.5
        body = json.dumps(request_body(self._draw, tag, is_stream)).encode()
        headers = request_headers(self._draw.choice(self._keys), tag, kind)
        where = urlsplit(self._stack.endpoint("gateway"))
        assert where.hostname is not None and where.port is not None
        with contextlib.suppress(ExchangeError, OSError, TimeoutError):
            exchange = await open_exchange(
                "http/1.1", where.hostname, where.port, PATH, headers, len(body)
            )
            leaves_after_s = TIMEOUT_S if kind is None else kind.leaves_after_s or TIMEOUT_S
            try:
                async with asyncio.timeout(leaves_after_s):
                    await exchange.send_head(1)
                    await exchange.send_body(body, 1)
                    async for _ in exchange.reply():
                        pass
            finally:
                is_reset = kind is not None and kind.is_reset
                await exchange.leave("reset" if is_reset else "close")

    async def _wait_for(self, condition: str, *values: Any) -> None:
        connection = await asyncpg.connect(self._stack.dsn())
        try:
            async with asyncio.timeout(QUIET_MOST_S):
                while not await connection.fetchval(condition, *values):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await connection.close()

    async def _compare(self) -> Verdict:
        connection = await asyncpg.connect(self._stack.dsn())
        try:
            rows = await connection.fetch(_HOLDS)
        finally:
            await connection.close()
        holds = {row["request_id"]: row for row in rows}
        billed = read_bill_by_tag(self._stack.bill)
        charged, unbilled = [], 0
        for arrival in self._upstream.arrivals:
            kind = self._kinds.get(arrival.tag or "", "ordinary")
            if kind == "ordinary" or arrival.request_id is None:
                continue
            hold = holds[UUID(arrival.request_id)]
            bill_picos = billed.get(arrival.tag or "", 0)
            charge_picos = hold["charge_picos"] or 0
            if not bill_picos:
                unbilled += bool(charge_picos)
                continue
            charged.append(
                Charged(kind, hold["amount_picos"], charge_picos, hold["guess_picos"], bill_picos)
            )
        if self._upstream.missed:
            sys.stderr.write(f"{self._upstream.missed} arrivals were forgotten by the upstream\n")
        return Verdict(tuple(charged), unbilled)


async def run_abandoned(home: Path, requests: int, seed: int) -> Verdict:
    """Start a stack below `home`, run the campaign on it, and end the stack."""
    began = time.monotonic()
    with ChaosStack(home, chaos_environment(home, SETTINGS), 1).running() as stack:
        async with aiohttp.ClientSession() as session:
            verdict = await Campaign(stack, session, seed).run(requests)
    sys.stdout.write(f"{requests} requests in {time.monotonic() - began:.0f} s\n")
    return verdict
