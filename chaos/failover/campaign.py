"""Asks a model that three providers serve in turn, while they fail at random."""

import asyncio
import contextlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from chaos.customers import Administrator
from chaos.failover.faults import Nemesis
from chaos.failover.providers import Fleet, running_fleet
from chaos.failover.setting import (
    MODEL,
    NAMES,
    PRICE_FACTORS,
    Gateway,
    provider_id,
    provider_key,
)
from chaos.failover.verdict import Booked, Seen, Verdict, by_request
from chaos.stack import ChaosStack, chaos_environment
from chaos.upstream import DEFAULT_PROVIDER, read_bill

SETTINGS: Final = {
    "TOLLKEEPER_AUTHZ_HOLD_LIFETIME_S": "60",
    "TOLLKEEPER_LOOKUP_FIRST_DELAY_S": "1",
    "TOLLKEEPER_LOOKUP_PATIENCE_S": "5",
    "TOLLKEEPER_PROVIDER_REPORTS": "false",
}
ACCOUNTS: Final = 4
# In basis points; one leaves fractions of a pico-dollar.
MARKUP_BPS: Final = 333
AT_ONCE: Final = 24
TIMEOUT: Final = aiohttp.ClientTimeout(total=120)
QUIET_MOST_S: Final = 240.0
LOOK_EVERY_S: Final = 0.5

_HAS_HOLDS: Final = "SELECT EXISTS (SELECT FROM holds)"
_BOOKED: Final = """
SELECT h.request_id::text AS request_id, min(p.provider) FILTER (WHERE u.hold_id IS NOT NULL)
           AS provider,
       coalesce(sum(u.provider_cost_picos), 0)::bigint AS cost_picos,
       -- A policy charges a guess, or ends a request that failed without a charge.
       coalesce(bool_or(u.source = 'policy'), false) OR min(h.reason) IN ('failed', 'not_billed')
           AS is_guess
FROM ended_holds h
LEFT JOIN usage_records u ON u.hold_id = h.id AND u.placed_at = h.placed_at
LEFT JOIN prices p ON p.id = u.price_id
WHERE h.model_id = $1
GROUP BY h.id, h.placed_at, h.request_id
"""


class Campaign:
    """A running stack, the providers of its route, and everything that was asked."""

    def __init__(
        self, stack: ChaosStack, fleet: Fleet, session: aiohttp.ClientSession, seed: int
    ) -> None:
        self._stack = stack
        self._fleet = fleet
        self._session = session
        self._draw = random.Random(f"failover load {seed}")
        self._nemesis = Nemesis(fleet, PRICE_FACTORS, session, seed)
        self._seen: list[Seen] = []

    async def run(self, requests: int) -> Verdict:
        """Send so many requests while providers fail, let all holds end, and compare."""
        administrator = Administrator(self._stack, self._session)
        accounts = [
            await administrator.open_account(f"caller-{n}", "5000", MARKUP_BPS)
            for n in range(ACCOUNTS)
        ]
        keys = [account.key for account in accounts]
        await self._nemesis.calm()
        await Gateway(self._stack, self._session).set_up(self._fleet, keys[0])
        failing = asyncio.create_task(self._nemesis.run())
        try:
            await self._ask_many(keys, requests)
        finally:
            failing.cancel()
            await asyncio.gather(failing, return_exceptions=True)
        await self._nemesis.calm()
        return await self._compare()

    async def _ask_many(self, keys: list[str], requests: int) -> None:
        numbers = iter(range(requests))

        async def work() -> None:
            for number in numbers:
                self._seen.append(await self._ask(keys[number % len(keys)], number))

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def _ask(self, key: str, number: int) -> Seen:
        is_stream = self._draw.random() < 0.5
        words = f"{number} " + "lorem ipsum " * self._draw.randrange(40)
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": words}]}
        body |= {"max_tokens": self._draw.randrange(1, 80), "stream": is_stream}
        request_id = status = None
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.post(
                f"{self._stack.endpoint('gateway')}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=TIMEOUT,
            ) as reply:
                request_id, status = reply.headers.get("x-request-id"), reply.status
                whole = await reply.read()
                return Seen(request_id, status, status == 200 and _is_whole(whole, is_stream))
        return Seen(request_id, status, is_whole=False)

    async def _compare(self) -> Verdict:
        connection = await asyncpg.connect(self._stack.dsn())
        try:
            async with asyncio.timeout(QUIET_MOST_S):
                while await connection.fetchval(_HAS_HOLDS):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)
            rows = await connection.fetch(_BOOKED, MODEL)
        finally:
            await connection.close()
        booked = by_request([Booked(**row) for row in rows])
        bills = {provider_id(one): tuple(one.bill()) for one in self._fleet.providers}
        keys = {provider_id(one): provider_key(one) for one in self._fleet.providers}
        # The first requests may be served before the route is known.
        bills[DEFAULT_PROVIDER] = tuple(read_bill(self._stack.bill))
        told = ", ".join(f"{name} {count}" for name, count in sorted(self._nemesis.caused.items()))
        sys.stdout.write(f"faults: {told}\n")
        return Verdict(tuple(self._seen), booked, bills, keys)


def _is_whole(body: bytes, is_stream: bool) -> bool:
    if is_stream:
        return body.endswith(b"data: [DONE]\n\n")
    try:
        return "usage" in json.loads(body)
    except ValueError:
        return False


async def run_failover(folder: Path, requests: int, seed: int) -> Verdict:
    """Start a stack and three providers below `folder`, run the campaign, and end them."""
    home = folder / "home"
    with (
        running_fleet(folder, NAMES) as fleet,
        ChaosStack(home, chaos_environment(home, SETTINGS), 1).running() as stack,
    ):
        began = time.monotonic()
        async with aiohttp.ClientSession() as session:
            verdict = await Campaign(stack, fleet, session, seed).run(requests)
        sys.stdout.write(f"{requests} requests in {time.monotonic() - began:.0f} s\n")
    return verdict
