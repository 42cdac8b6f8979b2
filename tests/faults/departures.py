"""Clients that leave at a chosen point of the exchange, over either protocol."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, cycle, product
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from chaos.customers import Administrator, Customer
from chaos.exchange import Exchange, ExchangeError, Head, open_exchange
from chaos.stack import ChaosStack
from tests.patience import WAIT_S

PATH = "/v1/chat/completions"
CASE_HEADER = "x-case"
CREDIT_PICOS = 5 * 10**12
ANSWERS_AFTER_MS = 800
# Clients that leave when the answer comes do so from this much before it, each a bit later.
FIRST_JITTER_S = -0.03
JITTER_STEP_S = 0.008
JITTERS = 12
# A decision takes some milliseconds, on a busy machine many times as many; clients leave at all
# times about it.
DECIDING_STEP_S = 0.0004
DECIDING_STEPS = 60
# The upstream bills each case a number of prompt tokens of its own, by which the row is known.
FIRST_PROMPT_TOKENS = 100
# More requests than arrive between two looks.
LOOKED_AT = 200

_numbers = count()

# What the upstream does for each point after the check.
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "thinking": {"until_left": True},
    "refused later": {"until_left": True, "status": 500},
    "answering": {"delay_ms": ANSWERS_AFTER_MS, "chunk_delay_ms": 20},
    "headers of the answer": {"chunk_delay_ms": 60, "reply_bytes": 3_000_000},
    # Far longer than a client needs that is slow to leave.
    "mid-token": {"chunk_sizes": [37], "chunk_delay_ms": 10, "text": "word " * 4_000},
    "usage": {"chunk_delay_ms": 60},
    "end": {"chunk_delay_ms": 60},
}
STREAMS_ONLY = frozenset({"mid-token", "usage", "end"})
BILLED_POINTS = tuple(point for point in BEHAVIOURS if point != "refused later")
UNBILLED_POINTS = ("headers", "body", "refused later")


@dataclass(frozen=True, slots=True)
class Departure:
    """The point at which a client leaves, and how: `close` or `reset`."""

    number: int
    point: str
    protocol: str
    how: str
    is_stream: bool
    model: str = "openai/gpt-4o-mini"

    @property
    def name(self) -> str:
        """For people."""
        kind = "SSE" if self.is_stream else "JSON"
        return f"{self.point}, {self.protocol}, {self.how}, {kind}"

    @property
    def prompt_tokens(self) -> int:
        """By which the row of the bill is known."""
        return FIRST_PROMPT_TOKENS + self.number

    @property
    def body(self) -> bytes:
        """The request: long enough for its hold to cover the prompt tokens."""
        content = {"role": "user", "content": "word " * (40 + self.prompt_tokens // 4)}
        asked = {"model": self.model, "max_tokens": 40, "stream": self.is_stream}
        return json.dumps({**asked, "messages": [content]}).encode()

    def behaviour(self, **more: Any) -> dict[str, Any]:
        """The behaviour that the upstream is told to show."""
        match = {"header": {CASE_HEADER: str(self.number)}}
        told = {**BEHAVIOURS.get(self.point, {}), **more}
        return {"match": match, "prompt_tokens": self.prompt_tokens, **told}


def departures(points: Iterable[str]) -> list[Departure]:
    """Every way to leave at these points, where there is such a way."""
    return [
        Departure(next(_numbers), point, protocol, how, is_stream)
        for point, protocol, how, is_stream in product(
            points, ("http/1.1", "h2"), ("close", "reset"), (True, False)
        )
        if is_stream or point not in STREAMS_ONLY
    ]


def listeners(how_many: int) -> list[Departure]:
    """Clients who stay for as long as their stream does, in turn over both protocols.

    They ask a model of their own: a wrong cost far above its hold has requests of its model
    refused, and other tests share the stack.
    """
    protocols = cycle(("http/1.1", "h2"))
    return [
        Departure(next(_numbers), "none", next(protocols), "close", True, "openai/gpt-4o")
        for _ in range(how_many)
    ]


@dataclass(slots=True)
class Stage:
    """A stack with an account for each of the clients that leave."""

    stack: ChaosStack
    session: aiohttp.ClientSession
    _arrived: set[int] = field(default_factory=set)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open_accounts(self, cases: list[Departure]) -> dict[int, Customer]:
        """One for each case, with 5 US dollars."""
        administrator = Administrator(self.stack, self.session)
        opened = await asyncio.gather(
            *(administrator.open_account(f"leaver-{case.number}", "5") for case in cases)
        )
        return {case.number: one for case, one in zip(cases, opened, strict=True)}

    async def behave(self, behaviours: Iterable[dict[str, Any]]) -> None:
        """Tell the upstream what to do beside what it was told before."""
        url = f"{self.stack.endpoint('simulator')}/control/behaviours"
        for behaviour in behaviours:
            async with self.session.post(url, json=behaviour) as reply:
                assert reply.status == 201, await reply.text()

    async def arrived(self, cases: list[Departure]) -> list[int]:
        """Return those that reached the upstream lately."""
        url = f"{self.stack.endpoint('simulator')}/control/requests?limit={len(cases)}"
        async with self.session.get(url) as reply:
            found = (await reply.json())["requests"]
        numbers = [dict(one["headers"]).get(CASE_HEADER) for one in found]
        return [case.number for case in cases if str(case.number) in numbers]

    async def wait_arrived(self, case: Departure) -> None:
        """Return when the upstream has its request."""
        while case.number not in self._arrived:
            async with self._looking:
                if case.number not in self._arrived:
                    url = f"{self.stack.endpoint('simulator')}/control/requests?limit={LOOKED_AT}"
                    async with self.session.get(url) as reply:
                        for one in (await reply.json())["requests"]:
                            number = dict(one["headers"]).get(CASE_HEADER)
                            self._arrived |= set() if number is None else {int(number)}
                    await asyncio.sleep(0.02)

    async def begin(self, case: Departure, customer: Customer) -> Exchange:
        """A connection over which nothing is sent yet."""
        where = urlsplit(self.stack.endpoint("gateway"))
        assert where.hostname is not None and where.port is not None
        headers = [
            ("authorization", f"Bearer {customer.key}"),
            ("content-type", "application/json"),
            (CASE_HEADER, str(case.number)),
        ]
        return await open_exchange(
            case.protocol, where.hostname, where.port, PATH, headers, len(case.body)
        )

    async def leave(self, case: Departure, customer: Customer, pace: int = 1) -> float:
        """Ask, and leave at the point; returns when that was, by `time.monotonic`.

        With a greater `pace` a client about the decision stays so many times as long.
        """
        exchange = await self.begin(case, customer)
        async with asyncio.timeout(WAIT_S):
            if case.point == "headers":
                await exchange.send_head(0.6)
                await asyncio.sleep(0.1)
            elif case.point == "body":
                await exchange.send_head(1)
                await exchange.send_body(case.body, 0.5)
                await asyncio.sleep(0.1)
            else:
                await ask(exchange, case)
                await self._listen(exchange, case, pace)
        left_at = time.monotonic()
        await exchange.leave(case.how)
        return left_at

    async def _listen(self, exchange: Exchange, case: Departure, pace: int) -> None:
        if case.point == "deciding":
            await asyncio.sleep(pace * DECIDING_STEP_S * (case.number % DECIDING_STEPS))
        elif case.point in ("thinking", "refused later"):
            await self.wait_arrived(case)
        elif case.point == "answering":
            await self.wait_arrived(case)
            jitter_s = FIRST_JITTER_S + JITTER_STEP_S * (case.number % JITTERS)
            await asyncio.sleep(ANSWERS_AFTER_MS / 1000 + jitter_s)
        else:
            await _read_up_to(exchange, case.point)

    async def stay(self, case: Departure, customer: Customer) -> None:
        """Ask, and take the answer to its end, or to where it breaks off."""
        exchange = await self.begin(case, customer)
        await ask(exchange, case)
        with contextlib.suppress(ExchangeError):
            async for _ in exchange.reply():
                pass
        await exchange.leave("close")


async def ask(exchange: Exchange, case: Departure) -> None:
    """Send the whole request."""
    await exchange.send_head(1)
    await exchange.send_body(case.body, 1)


async def _read_up_to(exchange: Exchange, point: str) -> None:
    body = b""
    reply = exchange.reply()
    async with contextlib.aclosing(reply):  # type: ignore[type-var]
        async for part in reply:
            if isinstance(part, Head):
                assert part.status == 200, part
            else:
                body += part
            if _is_there(point, body):
                return
    raise ExchangeError(f"the answer ended before the point: {point}")


def _is_there(point: str, body: bytes) -> bool:
    """Return whether so much of the body brings the client to its point."""
    if point == "headers of the answer":
        return True
    if point == "mid-token":
        return body.count(b'"content":') >= 2 and not body.endswith(b"\n\n")
    _, usage, after = body.partition(b'"usage":{')
    if point == "usage":
        # On a busy machine the end may have come along.
        return bool(usage) and b"\n\n" in after
    return body.endswith(b"data: [DONE]\n\n")
