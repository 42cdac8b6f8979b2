"""Many clients at once, each of whom keeps a record of what it saw."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import h2.exceptions

from chaos.exchange import Exchange, ExchangeError, Head, open_exchange
from chaos.records import Records, Seen, find_refusal, with_headers
from chaos.requests import LAST_EVENTS, Leave, Request

PATIENCE_S: Final = 18.0
CLIENTS_MOST: Final = 200
# Half a second is where most of what matters happens.
WAITING_MOST_S: Final = 0.5
CHECK_MOST_S: Final = 0.006
MIDDLE_MOST_BYTES: Final = 900
_FAILURES: Final = (
    OSError,
    ExchangeError,
    aiohttp.ClientError,
    asyncio.IncompleteReadError,
    h2.exceptions.H2Error,
    TimeoutError,
)


class Crowd:
    """Sends requests at a steady rate, whatever becomes of them."""

    def __init__(self, gateway: str, session: aiohttp.ClientSession, records: Records) -> None:
        self._gateway = gateway
        self._session = session
        self._records = records

    async def press(self, requests: Iterator[Request], per_second: float, for_s: float) -> None:
        """Send for so long, then wait until every client has its answer or has given up."""
        began, number = time.monotonic(), 0
        asked: set[asyncio.Task[None]] = set()
        while (wait_s := began + number / per_second - time.monotonic()) < for_s:
            if time.monotonic() - began >= for_s:
                break
            await asyncio.sleep(max(0.0, wait_s))
            number += 1
            if len(asked) < CLIENTS_MOST:
                task = asyncio.create_task(self._ask(next(requests)))
                asked.add(task)
                task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)

    async def _ask(self, request: Request) -> None:
        left = request.leave
        seen = Seen(
            request.tag,
            request.customer.id,
            request.kind,
            request.protocol,
            f"{left.point} {left.how}" if left else None,
            sent_at=time.time(),
        )
        whole = request.protocol == "http/1.1" and left is None
        parts = [seen]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await (self._fetch(request, parts) if whole else self._exchange(request, parts))
        except _FAILURES as error:
            parts.append(replace(parts[-1], error=f"{type(error).__name__}: {error}"[:200]))
        self._records.add(replace(parts[-1], ended_at=time.time()))

    async def _fetch(self, request: Request, parts: list[Seen]) -> None:
        """The way most clients go: one pool of kept connections."""
        async with self._session.post(
            self._gateway + request.path, data=request.body, headers=dict(request.headers)
        ) as reply:
            headers = {name.lower(): value for name, value in reply.headers.items()}
            parts.append(with_headers(parts[-1], reply.status, headers))
            body = await reply.read()
            parts.append(replace(parts[-1], is_complete=True, refusal=find_refusal(body)))

    async def _exchange(self, request: Request, parts: list[Seen]) -> None:
        where = urlsplit(self._gateway)
        assert where.hostname is not None and where.port is not None
        exchange = await open_exchange(
            request.protocol,
            where.hostname,
            where.port,
            request.path,
            request.headers,
            len(request.body),
        )
        how = request.leave.how if request.leave else "close"
        try:
            await _converse(exchange, request, parts)
        finally:
            await exchange.leave(how)


async def _converse(exchange: Exchange, request: Request, parts: list[Seen]) -> None:
    """Send and read, up to the point where this client leaves."""
    leave = request.leave or Leave("never", "close", 1.0)
    if leave.point == "headers":
        await exchange.send_head(leave.fraction)
        return
    await exchange.send_head(1)
    if leave.point == "body":
        await exchange.send_body(request.body, leave.fraction)
        return
    await exchange.send_body(request.body, 1)
    if leave.point in ("check", "waiting"):
        most_s = CHECK_MOST_S if leave.point == "check" else WAITING_MOST_S
        await asyncio.sleep(leave.fraction * most_s)
        return
    await _read(exchange, leave, parts)


async def _read(exchange: Exchange, leave: Leave, parts: list[Seen]) -> None:
    body = b""
    async for part in exchange.reply():
        if isinstance(part, Head):
            parts.append(with_headers(parts[-1], part.status, part.headers))
        else:
            body += part
        if _is_enough(leave, body):
            return
    parts.append(replace(parts[-1], is_complete=True, refusal=find_refusal(body)))


def _is_enough(leave: Leave, body: bytes) -> bool:
    """Return whether the client has read as much as it will."""
    match leave.point:
        case "reply":
            return True
        case "middle":
            return len(body) >= leave.fraction * MIDDLE_MOST_BYTES
        case "usage":
            return b'"usage"' in body
        case "end":
            return any(last in body for last in LAST_EVENTS)
    return False
